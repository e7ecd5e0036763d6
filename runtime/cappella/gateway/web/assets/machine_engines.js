// The table of engines: made once, then only what changed is touched, so that focus and readers stay where they are.

import { fill, h, say, scrollable } from "./dom.js";
import { confirmation, isStarting, number, percent, reasonOf, restartsOf, size, stageOf, toneOf } from "./machine_words.js";

const FULL = [
  ["On", (engine) => (engine.gpus?.length ? `GPU ${engine.gpus.join(", ")}` : "memory")],
  ["Planned", (engine) => size(engine.planned && Object.values(engine.planned).reduce((sum, each) => sum + each, 0))],
  ["Used", (engine) => size(engine.used_bytes)],
  ["KV use", (engine) => percent(engine.kv_usage)],
  ["Running", (engine) => number(engine.running)],
  ["Waiting", (engine) => number(engine.waiting)],
  ["Tokens/s", (engine) => number(engine.tokens_per_s)],
  ["Restarts", restartsOf],
];

/** `ask(name, action)` is called when somebody wants something of an engine. */
export function engineTable(ask) {
  const table = h("table", { className: "machine-table", role: "table" });
  const rows = new Map();
  let shape = "";
  const root = scrollable("Engines", table);
  return { root, show };

  function show(engines) {
    const names = Object.keys(engines);
    // A key that may only run sees states, and nothing beside them.
    const columns = Object.values(engines).some((each) => each.planned) ? FULL : [];
    const wanted = JSON.stringify([names, columns.length]);
    if (wanted !== shape) {
      shape = wanted;
      rows.clear();
      names.forEach((name) => rows.set(name, engineRow(name, columns, ask)));
      fill(table, h("caption", { className: "unseen" }, "Engines"), head(columns), body([...rows.values()]));
    }
    for (const [name, row] of rows) row.show(engines[name]);
  }
}

function head(columns) {
  const titles = ["Engine", "State", ...columns.map(([title]) => title), ...(columns.length ? ["Actions"] : [])];
  const cells = titles.map((title) => h("th", { scope: "col", role: "columnheader" }, title));
  return h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, cells));
}

function body(rows) {
  return h("tbody", { role: "rowgroup" }, rows.flatMap((row) => row.rows));
}

function engineRow(name, columns, ask) {
  const adapters = h("span", { className: "muted small" });
  const chip = h("span", { className: "machine-state" });
  const stage = h("span", { className: "muted small machine-stage" });
  const bar = h("progress", { className: "machine-progress", max: "1", "aria-label": `Start of ${name}` });
  const cells = columns.map(([title]) => h("td", { className: "number", role: "cell", "data-label": title }));
  const doing = h("td", { className: "machine-do", role: "cell", "data-label": "Actions" });
  const reason = h("td", { className: "muted small", role: "cell", colspan: columns.length ? columns.length + 3 : 2 });
  const reasonRow = h("tr", { className: "machine-reason", role: "row" }, reason);
  let offered = "";
  const root = h(
    "tr",
    { role: "row" },
    h("th", { scope: "row", role: "rowheader" }, h("span", { className: "name" }, name), " ", adapters),
    h("td", { role: "cell", "data-label": "State" }, h("div", { className: "machine-where" }, chip, bar, stage)),
    cells,
    columns.length ? doing : null,
  );
  return { rows: [root, reasonRow], show };

  function show(engine) {
    say(adapters, engine.adapters?.length ? `with ${engine.adapters.join(", ")}` : "");
    say(chip, engine.state);
    chip.className = `machine-state ${toneOf(engine.state)}`;
    say(stage, stageOf(engine));
    say(reason, reasonOf(engine));
    reasonRow.hidden = !reasonOf(engine);
    root.classList.toggle("has-reason", !reasonRow.hidden);
    bar.hidden = !isStarting(engine);
    bar.value = engine.progress ?? 0;
    columns.forEach(([, words], at) => say(cells[at], words(engine)));
    offer(engine.actions ?? []);
  }

  function offer(actions) {
    if (offered === actions.join()) return;
    offered = actions.join();
    const had = doing.contains(document.activeElement);
    fill(doing, actions.map((action) => button(action)));
    // What was pressed is gone: whoever works by keyboard stays in this row.
    if (had) doing.querySelector("button")?.focus();
  }

  function button(action) {
    const { verb, title } = confirmation(action, name);
    const label = title.replace("?", "");
    return h("button", { type: "button", "aria-label": label, onclick: () => ask(name, action) }, verb);
  }
}
