// A field in which an earlier question is changed and sent again.

import { h } from "./dom.js";
import { isComposing, sendOnEnter } from "./enter_key.js";

/** The field in place of `shown`, until it is sent or given up; `send(question)` returns false where the new words cannot be sent. */
export function editQuestion(shown, question, send) {
  const text = h("textarea", { "aria-label": "Change the question", rows: Math.min(12, question.split("\n").length + 1) });
  text.value = question;
  const close = () => {
    form.remove();
    shown.hidden = false;
  };
  const submit = () => {
    const words = text.value.trim();
    if (!words) return text.focus();
    return send(words) === false ? undefined : close();
  };
  const cancel = () => {
    close();
    shown.querySelector("button")?.focus();
  };
  const form = h(
    "form",
    { className: "editor" },
    text,
    h(
      "div",
      { className: "row" },
      h("button", { type: "submit", className: "primary" }, "Ask this instead"),
      h("button", { type: "button", onclick: cancel }, "Cancel"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  form.addEventListener("keydown", (event) => event.key === "Escape" && !isComposing(event) && cancel());
  sendOnEnter(text, submit);
  shown.hidden = true;
  shown.before(form);
  text.focus();
}
