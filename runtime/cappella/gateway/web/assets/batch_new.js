// Makes a batch: a file of OpenAI's rows as it is, or a CSV of which each row fills a template.

import { chatLines, endpointOf, filled, MAX_CSV_BYTES, readCsv, UnusableInput } from "./batch_input.js";
import { sizeText } from "./batch_text.js";
import { fill, h, setText } from "./dom.js";
import { decoded } from "./file_reading.js";
import { readModels, rowBody } from "./request.js";
import { runOptions } from "./run_options.js";

const LINES_TYPE = "application/jsonl";
const WINDOWS = [["24h", "a day"], ["3d", "three days"], ["7d", "a week"], ["30d", "30 days"]];

/** The form: `root`. `created(batch)` is called with a new batch, `failed(error)` with what the server refuses, and null before. */
export function newBatch(api, { created, failed }) {
  const file = h("input", { type: "file", id: "batch-file", accept: ".jsonl,.csv,.tsv", required: true, "aria-describedby": "batch-told" });
  const told = h("p", { id: "batch-told", className: "small", role: "status" });
  const template = h("textarea", { id: "batch-template", rows: 2, spellcheck: true, "aria-describedby": "batch-example" });
  const example = h("p", { id: "batch-example", className: "small muted batch-example" });
  const options = h("div", { className: "batch-options" });
  const ofCsv = h("div", { className: "batch-csv", hidden: true }, h("label", { for: "batch-template" }, "What is asked of each row, with its {columns}"), template, example, options);
  const span = h("select", { id: "batch-window" }, WINDOWS.map(([value, words]) => h("option", { value }, words)));
  const send = h("button", { type: "submit", className: "primary" }, "Create the batch");
  const form = h(
    "form",
    { className: "batch-form" },
    h("label", { for: "batch-file" }, "File: rows of OpenAI's batches (.jsonl), or a table (.csv)"),
    file,
    told,
    ofCsv,
    h("div", { className: "row" }, h("label", { for: "batch-window" }, "To be done within"), span, send),
  );
  const state = { source: null, controls: null, isBusy: false };
  const root = h("details", { className: "batch-new" }, h("summary", {}, "New batch"), form);
  file.addEventListener("change", choose);
  template.addEventListener("input", showExample);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!state.isBusy) submit();
  });
  return { root, reset };

  async function choose() {
    const [chosen] = file.files;
    state.source = null;
    ofCsv.hidden = true;
    tell("");
    if (!chosen) return;
    try {
      const source = await sourceOf(chosen);
      if (source.records && !state.controls) await loadOptions();
      // The user may have chosen another one meanwhile.
      if (file.files[0] !== chosen) return;
      state.source = source;
      ofCsv.hidden = !source.records;
      tell(source.words);
      if (source.records && !template.value) template.value = `Summarise: {${source.columns.at(-1)}}`;
      showExample();
    } catch (error) {
      tellProblem(error, chosen.name);
    }
  }

  async function loadOptions() {
    const found = readModels(await api.get("/v1/models"));
    if (!found.ensembles.length) throw new UnusableInput("This key is not allowed to call any ensemble.");
    state.controls = runOptions(found, { withModels: true });
    fill(options, state.controls.element);
  }

  function showExample() {
    const first = state.source?.records?.[0];
    if (!first) return;
    try {
      const text = filled(template.value, first);
      setText(example, `The first row asks: ${text.length > 300 ? `${text.slice(0, 300)}…` : text}`);
    } catch (error) {
      setText(example, error.message);
    }
  }

  async function submit() {
    if (!state.source) return file.focus();
    failed(null);
    setBusy(true);
    try {
      const batch = await create(api, state, template.value, span.value);
      reset();
      created(batch);
    } catch (error) {
      tellProblem(error, state.source?.name);
    }
    setBusy(false);
  }

  function tellProblem(error, name) {
    if (error instanceof UnusableInput) tell(`${name}: ${error.message}`, true);
    // Browsers tell what is wrong with a file by a DOMException.
    else if (error instanceof DOMException) tell(`${name} cannot be read: it was moved, changed or deleted.`, true);
    else failed(error);
  }

  function tell(words, isBad = false) {
    told.classList.toggle("batch-bad", isBad);
    setText(told, words);
  }

  function setBusy(value) {
    state.isBusy = value;
    setText(send, value ? "Sending…" : "Create the batch");
  }

  /** Forget the file, and with it what the key may call. */
  function reset() {
    form.reset();
    Object.assign(state, { source: null, controls: null });
    ofCsv.hidden = true;
    root.open = false;
    tell("");
  }
}

/** A file as `{name, words}` with `columns` and `records`, or an `endpoint` and the `file` itself. Throws UnusableInput. */
async function sourceOf(file) {
  if (!/\.(csv|tsv)$/i.test(file.name)) {
    const endpoint = endpointOf(await file.slice(0, MAX_CSV_BYTES).text());
    return { name: file.name, file, endpoint, words: `${sizeText(file.size)} of requests to ${endpoint}: they are sent as they are.` };
  }
  if (file.size > MAX_CSV_BYTES) {
    throw new UnusableInput(`It is larger than ${sizeText(MAX_CSV_BYTES)}: on the command line \`cappella batch\` takes it.`);
  }
  const text = decoded(new Uint8Array(await file.arrayBuffer()));
  if (text === null) throw new UnusableInput("It is no text.");
  const { columns, records } = readCsv(text);
  const rows = `${records.length.toLocaleString("en")} ${records.length === 1 ? "row" : "rows"}`;
  return { name: file.name, columns, records, words: `${rows} with the columns ${columns.join(", ")}.` };
}

async function create(api, { source, controls }, template, window) {
  const content = source.file ?? new Blob(chatLines(source.records, template, (question) => rowBody(controls.value(), question)));
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", new Blob([content], { type: LINES_TYPE }), source.file?.name ?? source.name.replace(/\.\w+$/, ".jsonl"));
  const { id } = await api.form("/v1/files", form);
  try {
    return await api.post("/v1/batches", { input_file_id: id, endpoint: source.endpoint ?? "/v1/chat/completions", completion_window: window });
  } catch (error) {
    // The file would lie there unused.
    if (error.status !== undefined) await api.delete(`/v1/files/${id}`).catch(() => {});
    throw error;
  }
}
