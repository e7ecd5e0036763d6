// The Machine view: engines, memory, ensembles and recent runs, refreshed every second while the page is visible.

import { confirmDialog } from "./confirm_dialog.js";
import { announce, fill, h, setText } from "./dom.js";
import { actionOutcomes } from "./machine_actions.js";
import { hourCharts } from "./machine_charts.js";
import { engineTable } from "./machine_engines.js";
import { memoryPicture } from "./machine_memory.js";
import { callCells, confirmation, formatNumber, runCells, summaryText, toolServerCells, withReplicas } from "./machine_text.js";
import { plainTable } from "./plain_table.js";

const REFRESH_MS = 1000;
// What changes more slowly: the runs, the calls and the charts.
const REFRESHES_PER_LISTS = 5;

export function mount(root, api) {
  const view = build(root, act, (name) => api.get(`/api/engines/${encodeURIComponent(name)}`));
  const outcomes = actionOutcomes((words) => view.did(words));
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
      outcomes.look(withReplicas(machine.engines ?? {}));
      if (refreshes % REFRESHES_PER_LISTS === 0) await refreshLists(machine);
      refreshes += 1;
      view.failed(null);
    } catch (error) {
      view.failed(error);
    }
    if (isUnmounted) return;
    clearTimeout(timer);
    timer = setTimeout(refresh, REFRESH_MS);
  }

  async function refreshLists(machine) {
    if (machine.runs_kept) view.showRuns((await api.get("/api/runs?limit=10")).data);
    // The rest is for operators, who see the queue.
    if (!machine.queue) return;
    view.showHour(await api.get("/api/figures"));
    view.showCalls((await api.get("/api/calls?limit=50")).data);
  }

  async function act(name, action) {
    if (!(await view.confirm(confirmation(action, name)))) return;
    try {
      const { state } = await api.post(`/api/engines/${encodeURIComponent(name)}/${action}`, {});
      view.refused(null);
      outcomes.began(name, action, state);
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

function build(root, act, look) {
  const summary = h("p", { className: "muted", role: "status", "aria-live": "polite" });
  const note = h("div", { className: "note bad", role: "alert", hidden: true });
  const refusal = h("div", { className: "note warn", role: "alert", hidden: true });
  const done = h("ul", { className: "machine-done small muted", "aria-label": "What was done here" });
  const engines = engineTable(act, look);
  const hour = hourCharts();
  const memory = memoryPicture();
  const ensembles = plainTable("Ensembles", ["Ensemble", "Can answer", "Panel", "Judge", "In flight", "Waiting"]);
  const tools = plainTable("Tool servers", ["Tool server", "State", "Tools", "Calls", "Failed", "Confined by"]);
  const runs = plainTable("Recent runs", ["Time", "Model", "Status", "Seconds", "Id"]);
  const calls = plainTable("Last calls", ["Time", "Model", "Key", "Status", "Seconds", "Tokens in", "Tokens out"]);
  const inMemory = section("Memory", memory.root);
  const inTools = section("Tool servers", tools.root);
  const inRuns = section("Recent runs", runs.root);
  const inHour = section("The last hour", hour.root);
  const inCalls = section("Last calls", calls.root);
  for (const each of [inMemory, inTools, inRuns, inHour, inCalls]) each.hidden = true;
  const dialog = confirmDialog();
  fill(
    root,
    h(
      "div",
      { className: "machine" },
      h("div", { className: "machine-head" }, h("h1", {}, "Machine"), summary),
      note,
      refusal,
      section("Engines", engines.root, done),
      inMemory,
      inHour,
      section("Ensembles", ensembles.root),
      inTools,
      inRuns,
      inCalls,
      dialog.root,
    ),
  );
  return {
    show,
    showRuns,
    showHour(figures) {
      inHour.hidden = false;
      hour.show(figures);
    },
    showCalls(data) {
      inCalls.hidden = false;
      calls.show(data.map(callCells));
    },
    did(words) {
      done.prepend(h("li", {}, words));
      announce(words);
    },
    failed: (error) => showError(note, error),
    refused: (error) => showError(refusal, error),
    confirm: dialog.ask,
  };

  function show(machine) {
    setText(summary, summaryText(machine));
    engines.show(machine.engines ?? {});
    inMemory.hidden = !machine.memory?.length;
    memory.show(machine.memory ?? [], machine.engines ?? {});
    if (!machine.queue) inHour.hidden = inCalls.hidden = true;
    const servers = Object.entries(machine.tool_servers ?? {});
    inTools.hidden = !servers.length;
    tools.show(servers.map(toolServerCells));
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

function section(title, ...content) {
  return h("section", { className: "machine-section", "aria-label": title }, h("h2", {}, title), ...content);
}

function ensembleCells([name, each]) {
  const answers = each.answers ? "yes" : "no";
  const counts = [formatNumber(each.in_flight), formatNumber(each.waiting)];
  return [[`cappella/${name}`], answers, each.panel ?? [], each.judge ? [each.judge] : [], ...counts];
}
