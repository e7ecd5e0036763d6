// Copying text, also where the page came over plain HTTP and browsers offer no clipboard.

import { announce, h } from "./dom.js";

const SHOWN_MS = 1500;
const FAILED_MS = 5000;

/** Put a text on the clipboard; resolves to whether that worked. */
async function copyText(text) {
  // Only secure origins have `navigator.clipboard`: HTTPS, or this machine itself.
  if (!navigator.clipboard) return copySelection(text);
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => copySelection(text),
  );
}

/** A button that copies the text that `textOf` returns, and says whether it did. */
export function copyButton(textOf, label = "Copy") {
  const button = h("button", { type: "button", className: "quiet" }, label);
  let timer = 0;
  button.addEventListener("click", async () => {
    const copied = await copyText(textOf());
    const words = copied ? "Copied" : "Copying failed: select the text and press Ctrl+C";
    button.textContent = words;
    announce(words);
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = label), copied ? SHOWN_MS : FAILED_MS);
  });
  return button;
}

/** The old way: select the text in a field and let the browser copy the selection. */
function copySelection(text) {
  const focused = document.activeElement;
  const field = h("textarea", { className: "unseen", readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  document.body.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    field.remove();
    focused?.focus({ preventScroll: true });
  }
}
