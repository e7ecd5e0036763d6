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
export function isSendKey({ key, shiftKey, altKey, isComposing, keyCode }) {
  // Safari ends the composition before the key press, and marks that press with code 229.
  return key === "Enter" && !shiftKey && !altKey && !isComposing && keyCode !== 229;
}

/** The line that says which keys send; the field names it as its description. */
export function sendKeysHint(id) {
  const key = (name) => h("kbd", {}, name);
  const words = [key("Enter"), " sends, ", key("Shift"), " ", key("Enter"), " breaks the line"];
  return h("span", { className: "keys small muted", id }, ...words);
}
