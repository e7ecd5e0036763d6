// The first rows and the errors of a batch as elements, from the beginnings of its files.

import { MAX_READ_BYTES } from "./batch_files.js";
import { errorOf, firstRows, wholeLines } from "./batch_rows.js";
import { isOver, sizeText } from "./batch_text.js";
import { h } from "./dom.js";

const MAX_ROWS = 5;
const MAX_ERRORS = 10;
const MAX_SHOWN_CHARS = 1200;

/** The `rows` and `errors` as elements. Throws as the files are read. */
export async function readRows(files, batch, { input, output, error }) {
  const ids = [input, output, error].map((file) => file?.id);
  const [asked, answered, failed] = (await Promise.all(ids.map((id) => files.beginning(id)))).map(wholeLines);
  return { rows: shownRows(batch, input, asked, answered, failed), errors: shownErrors(batch, failed) };
}

function shownRows(batch, input, asked, answered, failed) {
  if (batch.errors?.data.length) return [];
  if (!input) return [h("p", { className: "muted" }, "The input file has been deleted.")];
  if (!asked.length) return [h("p", { className: "muted" }, `The first row is larger than ${sizeText(MAX_READ_BYTES)}.`)];
  const rows = firstRows(asked, answered, failed, MAX_ROWS);
  const none = isOver(batch) ? "Further on in the files, or deleted." : null;
  const later = !isOver(batch) && h("p", { className: "small muted" }, "Answers can be read here once the batch has ended.");
  return [h("ol", { className: "batch-lines" }, rows.map((row) => line(row, none))), ...(later ? [later] : [])];
}

function line({ id, question, answer, error }, none) {
  const said = error === null ? (answer ?? none) : error;
  const facts = [
    pair("Question", question),
    said !== null && pair(error === null ? "Answer" : "Error", said, error === null ? "" : "bad"),
  ];
  return h("li", {}, h("p", { className: "small muted" }, id), h("dl", {}, facts.filter(Boolean)));
}

function pair(name, text, className = "") {
  const shown = text.length > MAX_SHOWN_CHARS ? `${text.slice(0, MAX_SHOWN_CHARS)}…` : text;
  return h("div", { className }, h("dt", { className: "eyebrow" }, name), h("dd", {}, shown));
}

function shownErrors(batch, failed) {
  if (!failed.length) return [];
  const all = failed.slice(0, MAX_ERRORS);
  const list = h("ul", { className: "batch-problems" }, all.map((each) => h("li", {}, h("strong", {}, `${each.custom_id}: `), errorOf(each).slice(0, MAX_SHOWN_CHARS))));
  const isMore = batch.request_counts.failed > all.length || failed.length > all.length;
  return isMore ? [list, h("p", { className: "small muted" }, `These are the first ${all.length}; the error file has all.`)] : [list];
}
