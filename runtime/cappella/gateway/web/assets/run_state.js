// The state of a run from the chunks of its stream. Pure functions, without a document.

const CHARACTERS_PER_TOKEN = 4;

/** The state of a run that was just sent. Times are in ms on the clock of `nowMs`. */
export function newRun(nowMs) {
  return {
    phase: "sent",
    startedMs: nowMs,
    endedMs: null,
    panelEndedMs: null,
    runId: null,
    panel: [],
    judge: null,
    members: {},
    round: 1,
    waits: {},
    grace: null,
    gate: null,
    ranking: null,
    labels: {},
    analysis: null,
    answer: { text: "", reasoning: "", firstMs: null },
    finishReason: null,
    fusion: null,
    usage: null,
    warning: null,
    error: null,
  };
}

/** The state after one more chunk. */
export function withChunk(run, chunk, nowMs) {
  let next = chunk.fusion_event ? withEvent(run, chunk.fusion_event, nowMs) : run;
  const choice = chunk.choices?.[0];
  if (choice) next = withDelta(next, choice, nowMs);
  if (chunk.warning) next = { ...next, warning: chunk.warning.message };
  if (chunk.usage) next = { ...next, usage: chunk.usage };
  if (chunk.fusion) next = withResult({ ...next, usage: chunk.usage ?? null }, chunk.fusion, nowMs);
  return next;
}

/** The state after the stream of a single model ended: it is done if it said so. */
export function withEnd(run, nowMs) {
  const isDone = !isFinished(run) && run.runId === null && run.finishReason !== null;
  return isDone ? { ...run, phase: "done", endedMs: nowMs } : run;
}

/** The state after the stream ended early: by an error, or because the user stopped it. */
export function withInterruption(run, error, nowMs) {
  const stop = (member) => (isPending(member) ? closedMember(member, "stopped", nowMs) : member);
  const stopped = mapMembers(run.members, stop);
  const members = withPartials(stopped, error, nowMs);
  const phase = error ? "failed" : "stopped";
  return { ...run, phase, error, members, panel: Object.keys(members), endedMs: nowMs };
}

/** The names of the members that are still running. */
export function pendingMembers(run) {
  return run.panel.filter((name) => isPending(run.members[name]));
}

export function isFinished(run) {
  return ["done", "failed", "stopped"].includes(run.phase);
}

/** Tokens per second while a member writes: an estimate until it is done. */
export function tokensPerSecond(member, nowMs) {
  const wroteS = ((member.endedMs ?? nowMs) - member.firstMs) / 1000;
  if (member.firstMs === null || wroteS < 0.05) return null;
  return tokensOf(member) / wroteS;
}

/** How many tokens a member wrote: an estimate until it is done, as one delta may hold several. */
export function tokensOf(member) {
  const characters = member.text.length + member.reasoning.length;
  return member.tokens ?? Math.max(member.deltas, Math.round(characters / CHARACTERS_PER_TOKEN));
}

function withEvent(run, event, nowMs) {
  switch (event.type) {
    case "run.started": {
      const members = Object.fromEntries(event.panel.map((name) => [name, newMember(name, nowMs)]));
      return { ...run, phase: "panel", runId: event.run_id, panel: event.panel, judge: event.judge, members };
    }
    case "gate.decided":
      return { ...run, gate: event, phase: event.bypass ? "judge" : "panel" };
    case "round.started":
      return {
        ...run,
        round: event.round,
        phase: "panel",
        panelEndedMs: null,
        grace: null,
        members: mapMembers(run.members, (m) => newMember(m.name, nowMs)),
      };
    case "engine.waiting":
      return withWait(run, event.model, event.reason);
    case "engine.awake":
      return withWait(run, event.model, null);
    case "grace.started":
      return { ...run, grace: { names: event.models, endsMs: nowMs + event.grace_ms } };
    case "answer.delta":
      return withMember(run, event.model, (member) => withText(member, event, nowMs));
    case "tool.called":
      // What it has said before is no part of its answer.
      return withMember(run, event.model, (member) => ({ ...member, text: "" }));
    case "answer.done":
      return withPanelEnd(
        withMember(run, event.model, (member) => doneMember(member, event, nowMs)),
        nowMs,
      );
    case "answer.failed":
      return withPanelEnd(
        withMember(run, event.model, (member) => failedMember(member, event, nowMs)),
        nowMs,
      );
    case "review.done":
      return { ...run, ranking: event.ranking };
    case "analysis.started":
      return {
        ...run,
        phase: "analysis",
        labels: event.labels ?? {},
        analysis: { text: "", value: null, isWhole: false },
      };
    case "analysis.delta":
      return { ...run, analysis: { ...run.analysis, text: (run.analysis?.text ?? "") + event.delta } };
    case "analysis.done":
      return { ...run, analysis: { ...run.analysis, value: event.analysis, isWhole: true } };
    default:
      return run;
  }
}

/** With the reason why a member, or the judge, waits for its engine; without one it waits no longer. */
function withWait(run, name, reason) {
  if (!run.members[name]) return { ...run, waits: { ...run.waits, [name]: reason } };
  const state = reason === null ? "reading" : reason === "asleep" ? "waking" : "queued";
  return withMember(run, name, (member) => (isPending(member) ? { ...member, state } : member));
}

function withDelta(run, choice, nowMs) {
  const { content = "", reasoning = "" } = choice.delta ?? {};
  const next = choice.finish_reason ? { ...run, finishReason: choice.finish_reason } : run;
  if (!content && !reasoning) return next;
  const { answer } = next;
  const longer = {
    text: answer.text + content,
    reasoning: answer.reasoning + reasoning,
    firstMs: answer.firstMs ?? nowMs,
  };
  return { ...next, phase: "judge", answer: longer };
}

function withResult(run, fusion, nowMs) {
  const responses = Object.fromEntries((fusion.responses ?? []).map((each) => [each.model, each]));
  const members = mapMembers(run.members, (member) => {
    const response = responses[member.name];
    const whole = response ? { ...member, text: response.content, toolCalls: response.tool_calls ?? [] } : member;
    return withTimes(whole, run.usage);
  });
  const analysis = fusion.analysis ? { text: "", value: fusion.analysis, isWhole: true } : run.analysis;
  const labels = fusion.labels ?? run.labels;
  return {
    ...run,
    phase: "done",
    endedMs: nowMs,
    fusion,
    members,
    labels,
    analysis,
    ranking: fusion.ranking ?? run.ranking,
  };
}

/** With the times of its last call as the server measured them: `alto~2` is the second answer of the call of `alto`. */
function withTimes(member, usage) {
  const seat = member.name.replace(/~\d+$/, "");
  const call = usage?.fusion_details?.findLast((each) => each.role === "panel" && each.model === seat);
  if (!call || member.state !== "done") return member;
  const startedMs = member.endedMs - call.ms;
  return { ...member, startedMs, firstMs: call.first_token_ms === null ? null : startedMs + call.first_token_ms };
}

function newMember(name, nowMs) {
  return {
    name,
    state: "reading",
    text: "",
    reasoning: "",
    toolCalls: [],
    deltas: 0,
    tokens: null,
    startedMs: nowMs,
    firstMs: null,
    endedMs: null,
    reason: null,
    error: null,
    grace: null,
  };
}

function withText(member, event, nowMs) {
  return {
    ...member,
    state: event.delta ? "writing" : member.state === "writing" ? "writing" : "thinking",
    text: member.text + event.delta,
    reasoning: member.reasoning + (event.reasoning ?? ""),
    deltas: member.deltas + 1,
    firstMs: member.firstMs ?? nowMs,
  };
}

/** Its start by the server's clock: chunks that were sent over a while may arrive at once. */
function doneMember(member, event, nowMs) {
  return {
    ...closedMember(member, "done", nowMs),
    tokens: event.tokens,
    startedMs: Math.min(member.startedMs, nowMs - event.ms),
  };
}

// These members were cancelled and did not fail: enough others were done, or none was needed any more.
const CANCELLED_REASONS = ["straggler", "deadline", "quorum_unreachable"];

function failedMember(member, event, nowMs) {
  const state = CANCELLED_REASONS.includes(event.reason) ? "cancelled" : "failed";
  const text = event.partial || member.text;
  const grace = event.cut === "grace" ? { quorumMs: event.quorum_ms, graceMs: event.grace_ms } : null;
  return { ...closedMember(member, state, nowMs), text, reason: event.reason, error: event.error, grace };
}

function closedMember(member, state, nowMs) {
  return { ...member, state, endedMs: nowMs };
}

function isPending(member) {
  return member.endedMs === null;
}

function withPanelEnd(run, nowMs) {
  return pendingMembers(run).length === 0 ? { ...run, panelEndedMs: nowMs } : run;
}

/** With the answers that an error carries: of a panel below its quorum the stream does not tell them. */
function withPartials(members, error, nowMs) {
  const known = { ...members };
  for (const each of error?.details?.responses ?? []) {
    const member = known[each.model] ?? newMember(each.model, nowMs);
    known[each.model] = { ...closedMember(member, "done", nowMs), text: each.content };
  }
  for (const each of error?.details?.failed_models ?? []) {
    known[each.model] = failedMember(known[each.model] ?? newMember(each.model, nowMs), each, nowMs);
  }
  return known;
}

function withMember(run, name, change) {
  const member = run.members[name];
  return member ? { ...run, members: { ...run.members, [name]: change(member) } } : run;
}

function mapMembers(members, change) {
  return Object.fromEntries(Object.entries(members).map(([name, member]) => [name, change(member)]));
}
