// How far a run is, and what it came to, in words and figures.

import { h } from "./dom.js";
import { waitedFor } from "./run.js";
import { list, seconds } from "./trouble.js";

const PATIENT_MS = 2000;

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

/** What a run cost, as a small table. */
export function costTable(run) {
  const { usage, fusion } = run;
  const rows = [
    ["In all", seconds(fusion.timings.total_ms)],
    ["First word after", seconds(fusion.timings.first_token_ms ?? fusion.timings.total_ms)],
    ["Panel", seconds(fusion.timings.panel_ms)],
    ["Floor", seconds(fusion.timings.floor_ms)],
    ["Tokens read", `${usage.prompt_tokens} (${usage.prompt_tokens_details.cached_tokens} from caches)`],
    ["Tokens written", usage.completion_tokens],
  ];
  return h(
    "table",
    { className: "number" },
    h(
      "tbody",
      {},
      ...rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, String(value)))),
    ),
  );
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
