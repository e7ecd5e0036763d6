// The dialog that asks for a key.

import { h, fill } from "./dom.js";

const WORDS = "Servers with keys ask for one. It stays in this tab, and is gone when the tab closes.";

/** Ask for a key, with `problem` if one was refused; resolves to whether one was given. */
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
    dialog.addEventListener("close", () => resolve(take(api, dialog, input)), { once: true });
  });
}

function take(api, dialog, input) {
  const key = input.value.trim();
  input.value = "";
  if (dialog.returnValue !== "use") return false;
  api.key = key;
  document.dispatchEvent(new CustomEvent("cappella-key"));
  return true;
}
