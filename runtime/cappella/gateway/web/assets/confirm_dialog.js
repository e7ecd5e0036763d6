// A dialog that asks for confirmation.

import { h, setText, uniqueId } from "./dom.js";

/** The dialog: `root` to show, `ask({title, words, verb})` resolves to whether it was confirmed. The browser keeps the focus inside and returns it afterwards. */
export function confirmDialog() {
  const id = uniqueId("confirm-title");
  const title = h("h2", { id });
  const words = h("p", {});
  const yes = h("button", { value: "yes", className: "primary" });
  const no = h("button", { value: "no", autofocus: true }, "Cancel");
  const form = h("form", { method: "dialog" }, title, words, h("div", { className: "row end" }, no, yes));
  const root = h("dialog", { "aria-labelledby": id }, form);
  return { root, ask };

  function ask(question) {
    setText(title, question.title);
    setText(words, question.words);
    setText(yes, question.verb);
    setText(no, question.otherwise ?? "Cancel");
    root.returnValue = "no";
    root.showModal();
    return new Promise((resolve) => {
      root.addEventListener("close", () => resolve(root.returnValue === "yes"), { once: true });
    });
  }
}
