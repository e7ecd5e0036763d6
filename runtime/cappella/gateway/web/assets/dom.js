// Makes elements. Text stays text: no code of this page parses HTML.

/** An element with `props` (`className`, `on…` handlers, attributes) and its children. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "className") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...shown(children));
  return element;
}

/** Replace what is in `element` by `children`. */
export function fill(element, ...children) {
  element.replaceChildren(...shown(children));
  return element;
}

function shown(children) {
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

/** Set the text of an element, unless it has that text already. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell screen readers one change of state; not every token. */
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

let lastId = 0;

/** An id that no other element has. */
export function uniqueId(name) {
  lastId += 1;
  return `${name}-${lastId}`;
}
