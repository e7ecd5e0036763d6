// The state of a run as the server keeps it, as if its stream had just ended. Pure functions, without a document.

import { newRun } from "./run_state.js";

/** The question of a kept run and its state, from the reply of `/api/runs/ID`; texts are empty where the server keeps none. */
export function readKeptRun({ id, fusion, usage, answer, messages = [], error, status, total_ms: totalMs }) {
  const failed = fusion.failed_models ?? [];
  const names = [...(fusion.analysis_models ?? []), ...failed.map((each) => each.model)];
  const panel = [...new Set(names)];
  const members = Object.fromEntries(panel.map((name) => [name, member(name, fusion, usage, totalMs)]));
  const run = {
    ...newRun(0),
    phase: status === "failed" ? "failed" : "done",
    endedMs: totalMs ?? 0,
    runId: id,
    panel,
    members,
    judge: fusion.judge_model,
    gate: fusion.gate ?? null,
    labels: fusion.labels ?? {},
    ranking: fusion.ranking ?? null,
    analysis: fusion.analysis ? { text: "", value: fusion.analysis, isWhole: true } : null,
    answer: { text: answer?.content ?? "", reasoning: "", firstMs: null },
    error: error && { status: 500, code: null, message: error.message ?? error.type, details: {} },
    fusion,
    usage,
  };
  return { question: textOf(messages.findLast((each) => each.role === "user")?.content), run };
}

function member(name, fusion, usage, totalMs) {
  const call = usage?.fusion_details?.findLast((each) => each.role === "panel" && each.model === name.replace(/~\d+$/, ""));
  const failure = fusion.failed_models?.find((each) => each.model === name);
  const startedMs = call?.start_ms ?? 0;
  return {
    name,
    state: failure ? "failed" : "done",
    text: fusion.responses?.find((each) => each.model === name)?.content ?? failure?.partial ?? "",
    reasoning: fusion.responses?.find((each) => each.model === name)?.reasoning ?? "",
    toolCalls: fusion.responses?.find((each) => each.model === name)?.tool_calls ?? [],
    deltas: 0,
    tokens: call?.completion_tokens ?? null,
    startedMs,
    firstMs: call?.first_token_ms == null ? null : startedMs + call.first_token_ms,
    endedMs: call ? startedMs + call.ms : totalMs,
    reason: failure?.reason ?? null,
    error: failure?.error ?? null,
    grace: null,
  };
}

function textOf(content) {
  if (!Array.isArray(content)) return content ?? "";
  return content.map((part) => part.text ?? "[image]").join("\n\n");
}
