// The dialog that asks for an API key.

import { fill, h } from "./dom.js";

const WORDS = "A server with keys needs one. It is kept in this tab and forgotten when the tab closes.";

/** Ask for a key, with `problem` if one was rejected; resolves to whether one was given. */
export function askForKey(api, problem = null) {
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key-input");
  if (dialog.open) return Promise.resolve(false);
  fill(document.getElementById("key-words"), problem ? h("strong", {}, `${problem} `) : null, WORDS);
  input.value = api.key;
  dialog.returnValue = "";
  document.getElementById("key-cancel").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(acceptKey(api, dialog, input)), { once: true });
  });
}

function acceptKey(api, dialog, input) {
  const key = input.value.trim();
  input.value = "";
  if (dialog.returnValue !== "use") return false;
  api.key = key;
  document.dispatchEvent(new CustomEvent("cappella-key"));
  return true;
}
