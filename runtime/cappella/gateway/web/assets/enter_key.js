// Enter sends what is in a text field; Shift+Enter breaks the line.

import { h } from "./dom.js";

/** Call `send()` when Enter is pressed in `field`, alone or with Ctrl or Cmd. */
export function sendOnEnter(field, send) {
  field.setAttribute("enterkeyhint", "send");
  field.addEventListener("keydown", (event) => {
    if (!isSendKey(event)) return;
    event.preventDefault();
    send();
  });
}

/** Whether a key press sends. While an input method composes a word, Enter takes the word and sends nothing. */
export function isSendKey(event) {
  return event.key === "Enter" && !event.shiftKey && !event.altKey && !isComposing(event);
}

/** Whether a key press is one of an input method that composes a word. */
export function isComposing(event) {
  // Safari ends the composition before the key press, and marks that press with code 229.
  return Boolean(event.isComposing) || event.keyCode === 229;
}

/** The line that says which keys send; the field names it as its description. */
export function sendKeysHint(id) {
  const key = (name) => h("kbd", {}, name);
  const words = [key("Enter"), " sends, ", key("Shift"), " ", key("Enter"), " breaks the line"];
  return h("span", { className: "keys small muted", id }, ...words);
}
