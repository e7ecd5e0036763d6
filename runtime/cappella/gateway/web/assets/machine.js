// The Machine view: engines, memory, ensembles and recent runs, looked at each second while somebody looks at them.

import { fill, h, names, say, scrollable } from "./dom.js";
import { engineTable } from "./machine_engines.js";
import { memoryPicture } from "./machine_memory.js";
import { confirmation, number, summaryOf } from "./machine_words.js";

const LOOK_MS = 1000;
const RUNS_EVERY = 5;

export function mount(root, api) {
  const view = build(root, wish);
  let timer = null;
  let looks = 0;
  let gone = false;
  document.addEventListener("visibilitychange", onVisibility);
  document.addEventListener("cappella-key", onKey);
  look();
  return { unmount };

  async function look() {
    clearTimeout(timer);
    if (gone || document.hidden) return;
    try {
      const machine = await api.get("/api/machine");
      view.show(machine);
      if (machine.runs_kept && looks % RUNS_EVERY === 0) view.showRuns((await api.get("/api/runs?limit=10")).data);
      looks += 1;
      view.trouble(null);
    } catch (error) {
      view.trouble(error);
    }
    if (gone) return;
    clearTimeout(timer);
    timer = setTimeout(look, LOOK_MS);
  }

  async function wish(name, action) {
    if (!(await view.confirm(confirmation(action, name)))) return;
    try {
      await api.post(`/api/engines/${encodeURIComponent(name)}/${action}`, {});
      view.refused(null);
    } catch (error) {
      view.refused(error);
    }
    look();
  }

  function onVisibility() {
    if (!document.hidden) look();
  }

  function onKey() {
    looks = 0;
    look();
  }

  function unmount() {
    gone = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    document.removeEventListener("cappella-key", onKey);
  }
}

function build(root, wish) {
  const summary = h("p", { className: "muted", role: "status", "aria-live": "polite" });
  const note = h("div", { className: "note bad", role: "alert", hidden: true });
  const refusal = h("div", { className: "note warn", role: "alert", hidden: true });
  const engines = engineTable(wish);
  const memory = memoryPicture();
  const ensembles = plainTable("Ensembles", ["Ensemble", "Answers", "Panel", "Judge", "Under way", "Waiting"]);
  const runs = plainTable("Recent runs", ["When", "Model", "Status", "Seconds", "Id"]);
  const inMemory = section("Memory", memory.root);
  const inRuns = section("Recent runs", runs.root);
  inMemory.hidden = inRuns.hidden = true;
  const dialog = confirmDialog();
  fill(
    root,
    h("div", { className: "machine" }, h("div", { className: "machine-head" }, h("h1", {}, "Machine"), summary), note, refusal,
      section("Engines", engines.root), inMemory, section("Ensembles", ensembles.root), inRuns, dialog.root),
  );
  return { show, showRuns, trouble: (error) => tell(note, error), refused: (error) => tell(refusal, error), confirm: dialog.ask };

  function show(machine) {
    say(summary, summaryOf(machine));
    engines.show(machine.engines ?? {});
    inMemory.hidden = !machine.memory?.length;
    memory.show(machine.memory ?? [], machine.engines ?? {});
    ensembles.show(Object.entries(machine.ensembles ?? {}).map(ensembleCells));
  }

  function showRuns(data) {
    inRuns.hidden = false;
    runs.show(data.map(runCells));
  }
}

function tell(note, error) {
  note.hidden = error === null;
  const silent = error && error.status === undefined;
  const words = silent ? "The server does not answer. What stands here is what it said last." : error?.message ?? "";
  if (note.textContent !== words) fill(note, words ? h("p", {}, words) : null);
}

function section(title, content) {
  return h("section", { className: "machine-section", "aria-label": title }, h("h2", {}, title), content);
}

function ensembleCells([name, each]) {
  const answers = each.answers ? "yes" : "no";
  return [[`cappella/${name}`], answers, each.panel ?? [], [each.judge], number(each.in_flight), number(each.waiting)];
}

function runCells(run) {
  const when = new Date(run.time).toLocaleTimeString();
  const status = run.error ? `${run.status}: ${run.error.type}` : run.status;
  return [when, [run.model], status, run.total_ms === null ? "–" : (run.total_ms / 1000).toFixed(2), run.id];
}

/** Rows of cells, each a text or a list of names; drawn anew only when one of them changed. */
function plainTable(caption, titles) {
  const rows = h("tbody", { role: "rowgroup" });
  const head = h("tr", { role: "row" }, titles.map((title) => h("th", { scope: "col", role: "columnheader" }, title)));
  const parts = [h("caption", { className: "unseen" }, caption), h("thead", { role: "rowgroup" }, head), rows];
  const table = h("table", { className: "machine-table", role: "table" }, parts);
  let shown = "";
  return { root: scrollable(caption, table), show };

  function show(cells) {
    const wanted = JSON.stringify(cells);
    if (wanted === shown) return;
    shown = wanted;
    fill(rows, cells.map((row) => h("tr", { role: "row" }, row.map(cell))));
    const none = h("td", { role: "cell", colspan: titles.length, className: "muted" }, "None yet.");
    if (!cells.length) fill(rows, h("tr", { role: "row" }, none));
  }

  function cell(value, at) {
    const words = Array.isArray(value) ? h("span", {}, names(value)) : value;
    if (at === 0) return h("th", { scope: "row", role: "rowheader" }, words);
    return h("td", { role: "cell", "data-label": titles[at] }, words);
  }
}

/** A question with two ways out. The browser's own dialog keeps focus inside, and gives it back. */
function confirmDialog() {
  const title = h("h2", { id: "machine-confirm-title" });
  const words = h("p", {});
  const yes = h("button", { value: "yes", className: "primary" });
  const no = h("button", { value: "no", autofocus: true }, "Cancel");
  const form = h("form", { method: "dialog" }, title, words, h("div", { className: "row end" }, no, yes));
  const root = h("dialog", { "aria-labelledby": "machine-confirm-title" }, form);
  return { root, ask };

  function ask(question) {
    say(title, question.title);
    say(words, question.words);
    say(yes, question.verb);
    root.returnValue = "no";
    root.showModal();
    return new Promise((resolve) => {
      root.addEventListener("close", () => resolve(root.returnValue === "yes"), { once: true });
    });
  }
}
