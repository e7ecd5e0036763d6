// The ways in which files come to a question: a button, dropping them on the page, pasting them.

import { isLongPaste, pastedText } from "./attachments.js";
import { announce, h } from "./dom.js";
import { readFile, UnreadableFile } from "./file_reading.js";

const ACCEPTED = "image/png,image/jpeg,image/webp,image/gif,text/*,.pdf,.docx,.csv,.tsv,.json,.yaml,.yml,.toml,.md,.log";

/** The button; files that come in any way are read with `options()` and go to the `tray`, long pasted texts too. */
export function fileIntake(form, field, tray, options) {
  const input = h("input", { type: "file", multiple: true, hidden: true, accept: `${ACCEPTED},.py,.js,.ts,.sql,.sh` });
  const button = h(
    "button",
    { type: "button", className: "quiet attach", title: "Attach files", onclick: () => input.click() },
    h("span", { "aria-hidden": "true" }, "+"),
    h("span", { className: "unseen" }, "Attach files"),
  );
  let reading = Promise.resolve();
  const take = (files) => {
    // One after the other: the server reads one document of each user at a time.
    for (const file of files) reading = reading.then(() => add(file, tray, options()));
  };
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
    field.focus();
  });
  const takeTransfer = (event, transfer) => {
    const pasted = (transfer?.getData("text/plain") ?? "").replaceAll(/\r\n?/g, "\n").trim();
    const files = [...(transfer?.files ?? [])];
    // Spreadsheets put a picture of the cells beside their text.
    if (files.length && !pasted) take(files);
    else if (isLongPaste(pasted)) tray.add(pastedText(pasted));
    else return;
    event.preventDefault();
  };
  field.addEventListener("paste", (event) => takeTransfer(event, event.clipboardData));
  // Anywhere on the page: a file that misses the field would be opened in place of it.
  const isShown = () => form.checkVisibility();
  document.addEventListener("dragover", (event) => {
    if (isShown() && event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (isShown() && (event.dataTransfer?.files.length || event.target === field)) takeTransfer(event, event.dataTransfer);
  });
  return { elements: [button, input], whenRead: () => reading };
}

async function add(file, tray, options) {
  announce(`${file.name} is read`);
  tray.setReading(file.name);
  try {
    tray.add(await readFile(file, options));
  } catch (error) {
    const isExpected = error instanceof UnreadableFile;
    // Browsers tell what is wrong with a file by a DOMException.
    if (!isExpected && !(error instanceof DOMException)) reportError(error);
    tray.fail(isExpected ? error.message : `${file.name} cannot be read: it is a folder, or was moved, changed or deleted.`);
  } finally {
    tray.setReading("");
  }
}
