// The attachments of a question that is being written: chips with their size in tokens, which can be removed.

import { estimatedTokens } from "./attachments.js";
import { announce, fill, h, setText } from "./dom.js";
import { formatTokens } from "./format.js";

/** The tray; `count(text)` resolves to tokens or to null, `context()` is how many the models can read. */
export function attachmentTray({ count, context }) {
  let items = [];
  let failures = 0;
  let isAwaited = false;
  let nameOfRead = "";
  const list = h("ul", { className: "chips", "aria-label": "Attachments" });
  const sum = h("p", { className: "small muted number" });
  const problem = h("p", { className: "small problem", role: "alert", hidden: true });
  const reading = h("p", { className: "small muted", hidden: true });
  const element = h("div", { className: "tray", hidden: true }, list, reading, sum, problem);

  const draw = () => {
    element.hidden = items.length === 0 && problem.hidden && reading.hidden;
    const total = items.reduce((all, item) => all + item.tokens, 0);
    const isTooLong = context() !== null && total > context();
    sum.hidden = items.length === 0;
    sum.classList.toggle("problem", isTooLong);
    const isCounted = items.every((item) => item.isCounted);
    const size = `${isCounted ? "" : "about "}${total.toLocaleString("en")}`;
    const room = context() === null ? " tokens" : ` of the ${context().toLocaleString("en")} tokens that the models can read`;
    setText(sum, isTooLong ? `Too long: ${size}${room}` : `${size}${room}`);
  };
  const measure = async (item) => {
    const { kind, text } = item.attachment;
    const counted = kind === "text" ? await count(text).catch(() => null) : null;
    Object.assign(item, { isCounted: counted !== null, tokens: counted ?? item.tokens });
    setText(item.size, `${counted === null ? "≈ " : ""}${formatTokens(item.tokens)}`);
    draw();
  };
  const remove = (item) => {
    const at = items.indexOf(item);
    items = items.filter((each) => each !== item);
    item.chip.remove();
    announce(`${item.attachment.name} was removed`);
    draw();
    const next = items[Math.min(at, items.length - 1)]?.chip.querySelector("button");
    (next ?? element.closest("form").querySelector("textarea")).focus();
  };
  const add = (attachment) => {
    const { name, kind, url } = attachment;
    const item = { attachment, tokens: estimatedTokens(attachment), isCounted: false };
    item.size = h("span", { className: "muted number" });
    const label = `Remove ${name}`;
    const button = h("button", { type: "button", className: "quiet", "aria-label": label, onclick: () => remove(item) }, "×");
    const picture = kind === "image" && h("img", { src: url, alt: "" });
    item.chip = h("li", {}, picture, h("span", { className: "chip-name" }, name), item.size, button);
    items.push(item);
    list.append(item.chip);
    fail("");
    announce(`${name} is attached`);
    measure(item);
  };
  /** Say why something is not attached; an empty text takes the words away. */
  const fail = (words) => {
    if (words) failures += 1;
    setText(problem, words);
    problem.hidden = words === "";
    draw();
  };

  const drawReading = () => {
    setText(reading, nameOfRead && `Reading ${nameOfRead}…${isAwaited ? " Your question is sent then." : ""}`);
    reading.hidden = nameOfRead === "";
    draw();
  };

  return {
    element,
    add,
    fail,
    /** Say which file is being read; an empty name for none. */
    setReading(name) {
      nameOfRead = name;
      drawReading();
    },
    /** Say whether the question waits for its files. */
    setAwaited(value) {
      isAwaited = value;
      drawReading();
    },
    /** How often something could not be attached. */
    failures: () => failures,
    isEmpty: () => items.length === 0,
    /** Count again, as by another model. */
    recount: () => items.forEach(measure),
    attachments: () => items.map((item) => item.attachment),
    clear() {
      items = [];
      fill(list);
      fail("");
    },
  };
}
