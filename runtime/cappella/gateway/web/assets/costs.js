// How far a run is, and what it came to, in words and figures.

import { h, say } from "./dom.js";
import { waitedFor } from "./run.js";
import { list, seconds } from "./trouble.js";

const PATIENT_MS = 2000;
const NO_FIGURE = "–";

/** Where a run stands, in one line. */
export function statusOf(run, nowMs) {
  const spent = seconds((run.endedMs ?? nowMs) - run.startedMs);
  switch (run.phase) {
    case "sent":
      return `Sent, ${spent}`;
    case "panel":
      return panelStatus(run, nowMs);
    case "analysis":
      return `${run.judge} compares the answers, ${spent}`;
    case "judge":
      return `${run.gate?.bypass ? run.gate.model : run.judge} writes, ${spent}`;
    case "done":
      return doneStatus(run);
    case "stopped":
      return `Stopped after ${spent}`;
    default:
      return run.error?.code === "model_not_ready" ? "Not begun" : `Failed after ${spent}`;
  }
}

const FIGURES = {
  "Total time": ({ timings }) => seconds(timings.total_ms),
  "Time to first token": ({ timings }) => seconds(timings.first_token_ms ?? timings.total_ms),
  Panel: ({ timings }) => seconds(timings.panel_ms),
  Floor: ({ timings }) => seconds(timings.floor_ms),
  "Prompt tokens": (_, usage) => `${usage.prompt_tokens} (${usage.prompt_tokens_details.cached_tokens} cached)`,
  "Completion tokens": (_, usage) => String(usage.completion_tokens),
};

/** The time and tokens of a run as a small table, which has its place before there is a figure. */
export function figuresTable() {
  const cells = Object.entries(FIGURES).map(([title, figure]) => ({ title, figure, cell: h("td", {}, NO_FIGURE) }));
  const rows = cells.map(({ title, cell }) => h("tr", {}, h("th", { scope: "row" }, title), cell));
  return {
    element: h("table", { className: "number figures", "aria-label": "Time and tokens" }, h("tbody", {}, ...rows)),
    clear: () => cells.forEach(({ cell }) => say(cell, NO_FIGURE)),
    show: ({ fusion, usage }) => cells.forEach(({ figure, cell }) => say(cell, figure(fusion, usage))),
  };
}

function panelStatus(run, nowMs) {
  const open = waitedFor(run);
  const spentMs = nowMs - run.startedMs;
  if (open.length === 0) return `${run.judge} reads the answers, ${seconds(spentMs)}`;
  const round = run.round > 1 ? `Round ${run.round}: ` : "";
  if (open.length === run.panel.length && spentMs < PATIENT_MS) return `${round}${run.panel.length} members answer`;
  return `${round}waiting on ${list(open)}, ${seconds(spentMs)}`;
}

function doneStatus(run) {
  const { fusion, usage } = run;
  return `${whoOf(run)} · ${seconds(fusion.timings.total_ms)} · ${usage.total_tokens} tokens`;
}

const JUDGING = ["agreement", "analysis", "choice", "final"];

function whoOf({ fusion, usage, gate }) {
  if (fusion.status === "bypassed") return `${gate.model} alone`;
  const isJudged = usage.fusion_details.some((call) => JUDGING.includes(call.role));
  const end = isJudged ? fusion.judge_model : fusion.strategy === "vote" ? "a vote" : "no judge";
  return `${list(fusion.analysis_models)}, then ${end}`;
}
