// The bars of a run's waterfall from its calls. Pure functions, without a document.

const ROLE_TEXT = {
  gate: "decides whether a panel is needed",
  single: "answers alone",
  lookup: "looks up",
  panel: "answers",
  prefill: "reads early",
  review: "ranks the answers",
  agreement: "checks whether all agree",
  analysis: "compares",
  choice: "chooses",
  score: "scores",
  fold: "joins the first answers",
  final: "writes",
};
const JUDGE_ROLES = ["agreement", "analysis", "choice", "score", "fold", "final"];
const ROUND_MS = [1, 2, 2.5, 5, 10];

/**
 * The bars of a run, a row for each call of an engine and for each of a tool, which stands after the call that asked for it.
 * Segments are `{kind, fromMs, toMs}`; of kind prefill (until the first token), decode (from then on), hidden (the judge's
 * prefill while the panel still runs) and tool.
 */
export function waterfall(usage, timings, toolCalls = []) {
  const calls = usage?.fusion_details ?? [];
  const rows = calls.map((call, at) => row(call, roundOf(calls, at), timings.panel_ms));
  for (const use of toolCalls) rows.splice(placeOf(rows, use), 0, toolRow(use, timings.panel_ms));
  const endMs = Math.max(timings.total_ms, ...rows.map((each) => each.startMs + each.totalMs));
  return { rows, endMs, floorMs: timings.floor_ms, panelMs: timings.panel_ms, ticks: ticks(endMs) };
}

function row(call, round, panelMs) {
  const side = call.role === "prefill" || JUDGE_ROLES.includes(call.role) ? "judge" : "panel";
  const does = round > 1 ? `${ROLE_TEXT[call.role]}, round ${round}` : (ROLE_TEXT[call.role] ?? call.role);
  return {
    name: call.model,
    seat: call.model,
    does,
    role: call.role,
    side,
    segments: segments(call, panelMs).filter((each) => each.toMs > each.fromMs),
    readMs: call.first_token_ms ?? call.ms,
    wroteMs: call.first_token_ms === null ? 0 : call.ms - call.first_token_ms,
    startMs: call.start_ms,
    totalMs: call.ms,
    promptTokens: call.prompt_tokens,
    cachedTokens: call.cached_tokens,
    completionTokens: call.completion_tokens,
  };
}

/** After the last call of the same seat that had begun before, and the tools that it had asked for. */
function placeOf(rows, use) {
  const seat = use.seat.split("~")[0];
  const at = rows.findLastIndex((each) => each.seat === seat && each.startMs <= use.start_ms);
  return at < 0 ? rows.length : at + 1;
}

function toolRow(use, panelMs) {
  const fromMs = use.start_ms;
  const toMs = fromMs + use.ms;
  const tool = use.server ? `${use.server}: ${use.tool}` : (use.tool ?? "a tool that does not exist");
  const how = `${use.shared ? ", shared" : ""}${use.is_error ? ", failed" : ""}`;
  return {
    name: use.seat,
    seat: use.seat.split("~")[0],
    does: `${tool}${how}`,
    role: "tool",
    side: fromMs >= panelMs ? "judge" : "panel",
    segments: toMs > fromMs ? [{ kind: "tool", fromMs, toMs }] : [],
    readMs: 0,
    wroteMs: 0,
    startMs: fromMs,
    totalMs: use.ms,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
  };
}

function segments(call, panelMs) {
  const fromMs = call.start_ms;
  const toMs = fromMs + call.ms;
  if (call.role === "prefill") {
    const shown = Math.max(fromMs, Math.min(toMs, panelMs));
    return [
      { kind: "hidden", fromMs, toMs: shown },
      { kind: "prefill", fromMs: shown, toMs },
    ];
  }
  const firstMs = call.first_token_ms === null ? toMs : Math.min(toMs, fromMs + call.first_token_ms);
  return [
    { kind: "prefill", fromMs, toMs: firstMs },
    { kind: "decode", fromMs: firstMs, toMs },
  ];
}

/** The round of a panel call: a seat is called once in each. */
function roundOf(calls, at) {
  const { role, model } = calls[at];
  if (role !== "panel") return 1;
  return calls.slice(0, at + 1).filter((each) => each.role === role && each.model === model).length;
}

/** Round times for the axis, at most six. */
export function ticks(endMs) {
  const minStep = Math.max(endMs, 1) / 5;
  const power = 10 ** Math.floor(Math.log10(minStep));
  const step = ROUND_MS.find((each) => each * power >= minStep) * power;
  return Array.from({ length: Math.floor(endMs / step) + 1 }, (_, at) => at * step);
}

/** The overhead over the floor, in ms and as a ratio of the total time to the floor. */
export function overhead(timings) {
  const ratio = timings.total_ms / Math.max(timings.floor_ms, 1);
  return { ratio, overheadMs: Math.max(0, timings.total_ms - timings.floor_ms) };
}
