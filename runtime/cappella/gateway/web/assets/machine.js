// The Machine view: engines, memory, ensembles and recent runs, refreshed every second while the page is visible.

import { fill, h, names, scrollable, setText } from "./dom.js";
import { engineTable } from "./machine_engines.js";
import { memoryPicture } from "./machine_memory.js";
import { confirmation, formatNumber, summaryText } from "./machine_text.js";

const REFRESH_MS = 1000;
const REFRESHES_PER_RUNS = 5;

export function mount(root, api) {
  const view = build(root, act);
  let timer = null;
  let refreshes = 0;
  let isUnmounted = false;
  document.addEventListener("visibilitychange", onVisibility);
  document.addEventListener("cappella-key", onKey);
  refresh();
  return { unmount };

  async function refresh() {
    clearTimeout(timer);
    if (isUnmounted || document.hidden) return;
    try {
      const machine = await api.get("/api/machine");
      view.show(machine);
      if (machine.runs_kept && refreshes % REFRESHES_PER_RUNS === 0) {
        view.showRuns((await api.get("/api/runs?limit=10")).data);
      }
      refreshes += 1;
      view.failed(null);
    } catch (error) {
      view.failed(error);
    }
    if (isUnmounted) return;
    clearTimeout(timer);
    timer = setTimeout(refresh, REFRESH_MS);
  }

  async function act(name, action) {
    if (!(await view.confirm(confirmation(action, name)))) return;
    try {
      await api.post(`/api/engines/${encodeURIComponent(name)}/${action}`, {});
      view.refused(null);
    } catch (error) {
      view.refused(error);
    }
    refresh();
  }

  function onVisibility() {
    if (!document.hidden) refresh();
  }

  function onKey() {
    refreshes = 0;
    refresh();
  }

  function unmount() {
    isUnmounted = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    document.removeEventListener("cappella-key", onKey);
  }
}

function build(root, act) {
  const summary = h("p", { className: "muted", role: "status", "aria-live": "polite" });
  const note = h("div", { className: "note bad", role: "alert", hidden: true });
  const refusal = h("div", { className: "note warn", role: "alert", hidden: true });
  const engines = engineTable(act);
  const memory = memoryPicture();
  const ensembles = plainTable("Ensembles", ["Ensemble", "Can answer", "Panel", "Judge", "In flight", "Waiting"]);
  const runs = plainTable("Recent runs", ["Time", "Model", "Status", "Seconds", "Id"]);
  const inMemory = section("Memory", memory.root);
  const inRuns = section("Recent runs", runs.root);
  inMemory.hidden = inRuns.hidden = true;
  const dialog = confirmDialog();
  fill(
    root,
    h(
      "div",
      { className: "machine" },
      h("div", { className: "machine-head" }, h("h1", {}, "Machine"), summary),
      note,
      refusal,
      section("Engines", engines.root),
      inMemory,
      section("Ensembles", ensembles.root),
      inRuns,
      dialog.root,
    ),
  );
  return {
    show,
    showRuns,
    failed: (error) => showError(note, error),
    refused: (error) => showError(refusal, error),
    confirm: dialog.ask,
  };

  function show(machine) {
    setText(summary, summaryText(machine));
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

function showError(note, error) {
  note.hidden = error === null;
  const silent = error && error.status === undefined;
  const words = silent ? "The server does not answer. The page shows its last reply." : error?.message ?? "";
  if (note.textContent !== words) fill(note, words ? h("p", {}, words) : null);
}

function section(title, content) {
  return h("section", { className: "machine-section", "aria-label": title }, h("h2", {}, title), content);
}

function ensembleCells([name, each]) {
  const answers = each.answers ? "yes" : "no";
  const counts = [formatNumber(each.in_flight), formatNumber(each.waiting)];
  return [[`cappella/${name}`], answers, each.panel ?? [], [each.judge], ...counts];
}

function runCells(run) {
  const when = new Date(run.time).toLocaleTimeString();
  const status = run.error ? `${run.status}: ${run.error.type}` : run.status;
  return [when, [run.model], status, run.total_ms === null ? "–" : (run.total_ms / 1000).toFixed(2), run.id];
}

/** A table of cells, each a text or a list of names; drawn again only when one of them changed. */
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

/** A dialog that asks for confirmation. The browser keeps the focus inside and returns it afterwards. */
function confirmDialog() {
  const title = h("h2", { id: "machine-confirm-title" });
  const words = h("p", {});
  const yes = h("button", { value: "yes", className: "primary" });
  const no = h("button", { value: "no", autofocus: true }, "Cancel");
  const form = h("form", { method: "dialog" }, title, words, h("div", { className: "row end" }, no, yes));
  const root = h("dialog", { "aria-labelledby": "machine-confirm-title" }, form);
  return { root, ask };

  function ask(question) {
    setText(title, question.title);
    setText(words, question.words);
    setText(yes, question.verb);
    root.returnValue = "no";
    root.showModal();
    return new Promise((resolve) => {
      root.addEventListener("close", () => resolve(root.returnValue === "yes"), { once: true });
    });
  }
}
