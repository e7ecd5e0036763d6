// The table of engines: only what changed is updated, so that keyboard focus and screen readers keep their place.

import { fill, h, scrollable, setText } from "./dom.js";
import { actionButtons } from "./machine_buttons.js";
import { engineDetails } from "./machine_details.js";
import { replicaList } from "./machine_replicas.js";
import {
  formatBytes,
  formatNumber,
  formatPercent,
  isStarting,
  reasonText,
  restartsText,
  stageText,
  stateTone,
} from "./machine_text.js";

const COLUMNS = [
  ["Device", (engine) => (engine.gpus?.length ? `GPU ${engine.gpus.join(", ")}` : "memory")],
  ["Planned", (engine) => formatBytes(engine.planned && total(engine.planned))],
  ["Used", (engine) => formatBytes(engine.used_bytes)],
  ["KV use", (engine) => formatPercent(engine.kv_usage)],
  ["Running", (engine) => formatNumber(engine.running)],
  ["Waiting", (engine) => formatNumber(engine.waiting)],
  ["Tokens/s", (engine) => formatNumber(engine.tokens_per_s)],
  ["Restarts", restartsText],
];

function total(bytes) {
  return Object.values(bytes).reduce((sum, each) => sum + each, 0);
}

/** `act(name, action)` is called when the user presses a button of an engine; `look(name)` resolves to its details. */
export function engineTable(act, look) {
  const table = h("table", { className: "machine-table", role: "table" });
  const rows = new Map();
  let shape = "";
  const root = scrollable("Engines", table);
  return { root, show };

  function show(engines) {
    const names = Object.keys(engines);
    // A key without the admin scope gets only states.
    const columns = Object.values(engines).some((each) => each.planned) ? COLUMNS : [];
    const wanted = JSON.stringify([names, columns.length]);
    if (wanted !== shape) {
      shape = wanted;
      rows.clear();
      names.forEach((name) => rows.set(name, engineRow(name, columns, act, look)));
      fill(table, h("caption", { className: "unseen" }, "Engines"), head(columns), body([...rows.values()]));
    }
    for (const [name, row] of rows) row.show(engines[name]);
  }
}

/** What the engine does, if it does not write, or its adapters. */
function kindText({ task, adapters }) {
  if (task && task !== "generate") return task;
  return adapters?.length ? `with ${adapters.join(", ")}` : "";
}

function head(columns) {
  const titles = ["Engine", "State", ...columns.map(([title]) => title), ...(columns.length ? ["Actions"] : [])];
  const cells = titles.map((title) => h("th", { scope: "col", role: "columnheader" }, title));
  return h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, cells));
}

function body(rows) {
  return h("tbody", { role: "rowgroup" }, rows.flatMap((row) => row.rows));
}

function engineRow(name, columns, act, look) {
  const adapters = h("span", { className: "muted small" });
  const chip = h("span", { className: "machine-state" });
  const stage = h("span", { className: "muted small machine-stage" });
  const bar = h("progress", { className: "machine-progress", max: "1", "aria-label": `Start of ${name}` });
  const cells = columns.map(([title]) => h("td", { className: "number", role: "cell", "data-label": title }));
  const actionCell = h("td", { className: "machine-do", role: "cell", "data-label": "Actions" });
  const reason = h("td", { className: "muted small", role: "cell", colspan: columns.length ? columns.length + 3 : 2 });
  const reasonRow = h("tr", { className: "machine-reason", role: "row" }, reason);
  const details = engineDetails(name, () => look(name));
  const colspan = columns.length + 3;
  const replicas = replicaList(name, act, look);
  const replicasRow = wideRow(colspan, replicas.root);
  const detailsRow = wideRow(colspan, details.element);
  detailsRow.addEventListener("toggled", () => showBorders());
  const actions = actionButtons(name, act, actionCell);
  const root = h(
    "tr",
    { role: "row" },
    h("th", { scope: "row", role: "rowheader" }, h("span", { className: "name" }, name), " ", adapters, columns.length ? details.button : null),
    h("td", { role: "cell", "data-label": "State" }, h("div", { className: "machine-where" }, chip, bar, stage)),
    cells,
    columns.length ? actionCell : null,
  );
  return { rows: [root, reasonRow, replicasRow, detailsRow], show };

  function show(engine) {
    setText(adapters, kindText(engine));
    setText(chip, engine.state);
    chip.className = `machine-state ${stateTone(engine.state)}`;
    setText(stage, stageText(engine));
    replicas.show(engine.replicas ?? []);
    replicasRow.hidden = !engine.replicas?.length;
    setText(reason, reasonText(engine));
    reasonRow.hidden = !reasonText(engine);
    showBorders();
    bar.hidden = !isStarting(engine);
    bar.value = engine.progress ?? 0;
    columns.forEach(([, words], at) => setText(cells[at], words(engine)));
    actions.show(engine.actions ?? []);
  }

  /** One border below all the rows of an engine. */
  function showBorders() {
    detailsRow.hidden = details.element.hidden;
    const rows = [root, reasonRow, replicasRow, detailsRow].filter((each) => !each.hidden);
    rows.forEach((each, at) => each.classList.toggle("has-reason", at < rows.length - 1));
  }
}

/** A row below that of an engine, hidden until there is something in it. */
function wideRow(colspan, content) {
  return h("tr", { className: "machine-reason", role: "row", hidden: true }, h("td", { role: "cell", colspan }, content));
}
