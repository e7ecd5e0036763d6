// The files of batches: their names and sizes, how they begin, and their download.

import { modelIn } from "./batch_rows.js";
import { sizeText } from "./batch_text.js";
import { fill, h } from "./dom.js";
import { saveFile } from "./save_file.js";

/** So much is read of a file to show its first rows. */
export const MAX_READ_BYTES = 64 * 2 ** 10;
const MODEL_READ_BYTES = 4 * 2 ** 10;
/** A larger file is not loaded into a browser. */
const MAX_DOWNLOAD_BYTES = 256 * 2 ** 20;

/** The files that the key may see: `look(ids)` before `find(id)`, which is null for one that was deleted. */
export function batchFiles(api) {
  let known = new Map();
  const gone = new Set();
  const models = new Map();
  const find = (id) => known.get(id) ?? null;
  const modelOf = (id) => models.get(id) ?? null;
  return { look, find, forget, beginning, learnModels, modelOf, remove };

  /** Read the list of files, if one of these is not known yet. */
  async function look(ids) {
    const unknown = ids.filter((id) => id && !known.has(id) && !gone.has(id));
    if (!unknown.length) return;
    const { data } = await api.get("/v1/files");
    known = new Map(data.map((each) => [each.id, each]));
    for (const id of unknown) if (!known.has(id)) gone.add(id);
  }

  /** How the file begins; nothing of one that was deleted. */
  async function beginning(id, bytes = MAX_READ_BYTES) {
    if (!known.has(id)) return { text: "", isAll: true };
    return api.beginning(contentPath(id), bytes);
  }

  /** Read which model the first row of each of these inputs asks, once. */
  async function learnModels(ids) {
    for (const id of ids.filter((each) => known.has(each) && !models.has(each))) {
      models.set(id, modelIn((await beginning(id, MODEL_READ_BYTES)).text));
    }
  }

  async function remove(id) {
    await api.delete(`/v1/files/${encodeURIComponent(id)}`);
    known.delete(id);
    gone.add(id);
  }

  function forget() {
    known = new Map();
    gone.clear();
    models.clear();
  }
}

/** A button that saves a file; `failed(error)` is called with what goes wrong, and null before. */
export function downloadButton(api, words, failed) {
  const size = h("span", { className: "muted number" });
  const button = h("button", { type: "button", hidden: true, onclick: () => save() }, words, " ", size);
  const told = h("div", { className: "note", hidden: true });
  let file = null;
  return { button, told, show };

  function show(found) {
    if (found?.id !== file?.id) told.hidden = true;
    file = found;
    button.hidden = !file;
    if (file) fill(size, sizeText(file.bytes));
  }

  async function save() {
    failed(null);
    if (file.bytes > MAX_DOWNLOAD_BYTES) return tellCommand();
    button.disabled = true;
    try {
      saveFile(file.filename, await api.blob(contentPath(file.id)), "application/jsonl");
    } catch (error) {
      failed(error);
    }
    button.disabled = false;
  }

  function tellCommand() {
    const key = api.key ? '-H "Authorization: Bearer $KEY" ' : "";
    const command = `curl ${key}-o ${file.filename} ${location.origin}${contentPath(file.id)}`;
    fill(told, h("p", {}, `${sizeText(file.bytes)} are too much for a browser. On the command line:`), h("code", {}, command));
    told.hidden = false;
  }
}

function contentPath(id) {
  return `/v1/files/${encodeURIComponent(id)}/content`;
}
