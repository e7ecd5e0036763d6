// One batch, opened: its state, what can be done with it, its first rows, its errors and its facts.

import { batchCard, timeText } from "./batch_card.js";
import { downloadButton } from "./batch_files.js";
import { readRows } from "./batch_reading.js";
import { factPairs, isOver, problemText, waitsForWeights } from "./batch_text.js";
import { announce, fill, h } from "./dom.js";

const CANCEL = {
  title: "Cancel this batch?",
  words: "Its calls in flight are stopped. Rows that have an answer keep it; the others are named in the error file.",
  verb: "Cancel the batch",
  otherwise: "Let it go on",
};
const RESUME = {
  title: "Go on with the new weights?",
  words: "Rows that have ended keep their answers. The others begin anew with the models as they are now.",
  verb: "Go on",
};
const DELETE = {
  title: "Delete the files of this batch?",
  words: "Its questions, answers and errors are deleted from the server, and cannot be had back.",
  verb: "Delete the files",
};

/** The view of one batch: `root`, `show(batch)`, `focus()`. `changed()` is called after something was done, `failed(error)` if not. */
export function oneBatch(api, files, { confirm, changed, failed }) {
  const title = h("h1", { tabindex: -1 });
  const card = batchCard(title);
  const button = (words, act) => h("button", { type: "button", hidden: true, onclick: act }, words);
  const [cancel, resume] = [button("Cancel", () => post(CANCEL, "cancel", {})), button("Go on with the new weights", () => post(RESUME, "resume", { accept_new_weights: true }))];
  const remove = button("Delete its files", removeFiles);
  const answers = downloadButton(api, "Download answers", failed);
  const errors = downloadButton(api, "Download errors", failed);
  const [mistakes, rows, facts] = ["Mistakes in the file", "First rows", "Facts"].map(section);
  const failures = section("Errors");
  const root = h(
    "div",
    { className: "batch-one", hidden: true },
    h("p", {}, h("a", { href: "#batches" }, "All batches")),
    card.root,
    h("div", { className: "row" }, answers.button, errors.button, resume, cancel, remove),
    answers.told,
    errors.told,
    mistakes.root,
    rows.root,
    failures.root,
    facts.root,
  );
  const seen = { batch: null, reading: "" };
  return { root, show, clear, focus: () => title.focus() };

  function clear() {
    Object.assign(seen, { batch: null, reading: "" });
    for (const each of [rows, failures, mistakes, facts]) each.fill();
  }

  async function show(batch) {
    if (seen.batch?.id !== batch.id) clear();
    seen.batch = batch;
    const found = Object.fromEntries(["input", "output", "error"].map((name) => [name, files.find(batch[`${name}_file_id`])]));
    card.show(batch, files);
    const ended = isOver(batch);
    cancel.hidden = ended || batch.status === "cancelling";
    resume.hidden = ended || !waitsForWeights(batch);
    remove.hidden = !ended || !Object.values(found).some(Boolean);
    answers.show(found.output);
    errors.show(found.error);
    mistakes.fill(...problems(batch));
    showFacts(batch);
    await showRows(batch, found);
  }

  async function showRows(batch, found) {
    const wanted = [batch.id, isOver(batch), ...Object.values(found).map((each) => each?.id)].join(" ");
    if (wanted === seen.reading) return;
    seen.reading = wanted;
    const read = await readRows(files, batch, found).catch((error) => {
      if (seen.reading === wanted) seen.reading = "";
      throw error;
    });
    if (seen.reading !== wanted) return;
    rows.fill(...read.rows);
    failures.fill(...read.errors);
  }

  function showFacts(batch) {
    const pairs = factPairs(batch, files.modelOf(batch.input_file_id), timeText);
    facts.fill(h("dl", { className: "machine-facts small" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
  }

  async function post(question, action, body) {
    const { id } = seen.batch;
    if (await confirm(question)) await attempt(() => api.post(`/v1/batches/${encodeURIComponent(id)}/${action}`, body));
  }

  async function removeFiles() {
    const { input_file_id: input, output_file_id: output, error_file_id: error } = seen.batch;
    if (!(await confirm(DELETE))) return;
    const there = [input, output, error].filter((id) => id && files.find(id));
    await attempt(async () => {
      for (const id of there) await files.remove(id);
      announce("The files are deleted.");
    });
  }

  async function attempt(work) {
    failed(null);
    try {
      await work();
    } catch (error) {
      failed(error);
    }
    // What had the focus may be there no more.
    if (!root.contains(document.activeElement)) title.focus();
    changed();
  }
}

function problems({ errors }) {
  const all = errors?.data ?? [];
  return all.length ? [h("ul", { className: "batch-problems" }, all.map((each) => h("li", {}, problemText(each))))] : [];
}

/** A part with a title, which is hidden while there is nothing in it; what stays the same is not drawn again. */
function section(title) {
  const place = h("div", { className: "batch-part" });
  const root = h("section", { className: "machine-section", "aria-label": title, hidden: true }, h("h2", {}, title), place);
  return {
    root,
    fill(...content) {
      root.hidden = content.length === 0;
      const isSame = content.length === place.children.length && content.every((each, at) => each.isEqualNode(place.children[at]));
      if (!isSame) fill(place, ...content);
    },
  };
}
