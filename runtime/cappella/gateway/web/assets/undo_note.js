// A line that says what was done, with a button that undoes it; it stays until something else is done.

import { announce, fill, h } from "./dom.js";

/** The line; `show(words, undo)` shows it, `tell(words)` without the button, `hide()` takes it away. */
export function undoNote() {
  const element = h("div", { className: "undo small", hidden: true });
  const hide = () => {
    element.hidden = true;
    fill(element);
  };
  const show = (words, undo) => {
    const undoButton = h("button", { type: "button", className: "quiet" }, "Undo");
    undoButton.addEventListener("click", () => {
      hide();
      undo();
    });
    put(words, undoButton);
  };
  const put = (words, undoButton = null) => {
    fill(element, h("span", {}, words), undoButton);
    element.hidden = false;
    announce(words);
  };
  return { element, show, tell: (words) => put(words), hide, focus: () => element.querySelector("button")?.focus() };
}
