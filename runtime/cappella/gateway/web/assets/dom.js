// Elements from data. Text only ever becomes text: nothing here, or elsewhere, parses HTML.

/** An element; `className`, `on…` handlers, booleans and plain attributes in `props`, then what stands in it. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "className") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

/** Put `children` in the place of what stands in `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}

/** Names of models with commas between them. A name never breaks at the end of a line. */
export function names(all) {
  return all.flatMap((name, at) => [at ? ", " : "", h("span", { className: "name" }, name)]);
}

/** A wide element in a frame of its own that scrolls sideways, also by keyboard. */
export function scrollable(label, content) {
  return h("div", { className: "scrolls", tabindex: 0, role: "group", "aria-label": label }, content);
}

/** Set an element's text, and touch nothing if it says that already. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell screen readers of one change of state; not of every token. */
export function announce(text) {
  say(document.getElementById("announcer"), text);
}

let lastId = 0;

/** An id that no other element has. */
export function freshId(name) {
  lastId += 1;
  return `${name}-${lastId}`;
}
