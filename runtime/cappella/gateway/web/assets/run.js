// A run as its stream tells it: chunks in, the run's state out. Nothing here knows of a document.

const CHARACTERS_PER_TOKEN = 4;

/** A run that was just sent. Every moment is in ms on the clock of `nowMs`. */
export function begun(nowMs) {
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
    gate: null,
    ranking: null,
    labels: {},
    analysis: null,
    answer: { text: "", reasoning: "", firstMs: null },
    finishReason: null,
    fusion: null,
    usage: null,
    error: null,
  };
}

/** The state after one more chunk. */
export function heard(run, chunk, nowMs) {
  let next = chunk.fusion_event ? told(run, chunk.fusion_event, nowMs) : run;
  const choice = chunk.choices?.[0];
  if (choice) next = spoken(next, choice, nowMs);
  if (chunk.fusion) next = ended({ ...next, usage: chunk.usage ?? null }, chunk.fusion, nowMs);
  return next;
}

/** The state after the stream broke off: by an error, or because the user stopped it. */
export function brokenOff(run, error, nowMs) {
  const stopped = mapped(run.members, (member) => (isOpen(member) ? closed(member, "stopped", nowMs) : member));
  const members = withPartials(stopped, error, nowMs);
  const phase = error ? "failed" : "stopped";
  return { ...run, phase, error, members, panel: Object.keys(members), endedMs: nowMs };
}

/** Those that the panel still waits for. */
export function waitedFor(run) {
  return run.panel.filter((name) => isOpen(run.members[name]));
}

export function isOver(run) {
  return ["done", "failed", "stopped"].includes(run.phase);
}

/** Tokens a second while a member writes; about, until its end says how many there were. */
export function tokensPerSecond(member, nowMs) {
  const wroteS = ((member.endedMs ?? nowMs) - member.firstMs) / 1000;
  if (member.firstMs === null || wroteS < 0.05) return null;
  return tokensOf(member) / wroteS;
}

/** How many tokens a member wrote: by its own count at the end, until then about. A piece may hold several. */
export function tokensOf(member) {
  const characters = member.text.length + member.reasoning.length;
  return member.tokens ?? Math.max(member.pieces, Math.round(characters / CHARACTERS_PER_TOKEN));
}

function told(run, event, nowMs) {
  switch (event.type) {
    case "run.started": {
      const members = Object.fromEntries(event.panel.map((name) => [name, seated(name, nowMs)]));
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
        members: mapped(run.members, (m) => seated(m.name, nowMs)),
      };
    case "answer.delta":
      return withMember(run, event.model, (member) => wrote(member, event, nowMs));
    case "answer.done":
      return panelMoved(
        withMember(run, event.model, (member) => done(member, event, nowMs)),
        nowMs,
      );
    case "answer.failed":
      return panelMoved(
        withMember(run, event.model, (member) => failed(member, event, nowMs)),
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

function spoken(run, choice, nowMs) {
  const { content = "", reasoning = "" } = choice.delta ?? {};
  const next = choice.finish_reason ? { ...run, finishReason: choice.finish_reason } : run;
  if (!content && !reasoning) return next;
  const { answer } = next;
  const said = {
    text: answer.text + content,
    reasoning: answer.reasoning + reasoning,
    firstMs: answer.firstMs ?? nowMs,
  };
  return { ...next, phase: "judge", answer: said };
}

function ended(run, fusion, nowMs) {
  const responses = Object.fromEntries((fusion.responses ?? []).map((each) => [each.model, each]));
  const members = mapped(run.members, (member) => {
    const response = responses[member.name];
    const whole = response ? { ...member, text: response.content, toolCalls: response.tool_calls ?? [] } : member;
    return measured(whole, run.usage);
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

/** With the times that its last call really took: `alto~2` is the second answer of the call of `alto`. */
function measured(member, usage) {
  const seat = member.name.replace(/~\d+$/, "");
  const call = usage?.fusion_details?.findLast((each) => each.role === "panel" && each.model === seat);
  if (!call || member.state !== "done") return member;
  const startedMs = member.endedMs - call.ms;
  return { ...member, startedMs, firstMs: call.first_token_ms === null ? null : startedMs + call.first_token_ms };
}

function seated(name, nowMs) {
  return {
    name,
    state: "reading",
    text: "",
    reasoning: "",
    toolCalls: [],
    pieces: 0,
    tokens: null,
    startedMs: nowMs,
    firstMs: null,
    endedMs: null,
    reason: null,
    error: null,
  };
}

function wrote(member, event, nowMs) {
  return {
    ...member,
    state: event.delta ? "writing" : member.state === "writing" ? "writing" : "thinking",
    text: member.text + event.delta,
    reasoning: member.reasoning + (event.reasoning ?? ""),
    pieces: member.pieces + 1,
    firstMs: member.firstMs ?? nowMs,
  };
}

/** The server's own clock decides: what it sent in a while may arrive here all at once. */
function done(member, event, nowMs) {
  return {
    ...closed(member, "done", nowMs),
    tokens: event.tokens,
    startedMs: Math.min(member.startedMs, nowMs - event.ms),
  };
}

// Not waited for is not broken: these are cut because the others were enough, or the time was up.
const CUT = ["straggler", "deadline", "cut"];

function failed(member, event, nowMs) {
  const state = CUT.includes(event.reason) ? "cut" : "failed";
  const text = event.partial || member.text;
  return { ...closed(member, state, nowMs), text, reason: event.reason, error: event.error };
}

function closed(member, state, nowMs) {
  return { ...member, state, endedMs: nowMs };
}

function isOpen(member) {
  return member.endedMs === null;
}

function panelMoved(run, nowMs) {
  return waitedFor(run).length === 0 ? { ...run, panelEndedMs: nowMs } : run;
}

/** What an error tells of members that the stream did not get to tell: a panel below its quorum. */
function withPartials(members, error, nowMs) {
  const told = { ...members };
  for (const each of error?.details?.responses ?? []) {
    const member = told[each.model] ?? seated(each.model, nowMs);
    told[each.model] = { ...closed(member, "done", nowMs), text: each.content };
  }
  for (const each of error?.details?.failed_models ?? []) {
    told[each.model] = failed(told[each.model] ?? seated(each.model, nowMs), each, nowMs);
  }
  return told;
}

function withMember(run, name, change) {
  const member = run.members[name];
  return member ? { ...run, members: { ...run.members, [name]: change(member) } } : run;
}

function mapped(members, change) {
  return Object.fromEntries(Object.entries(members).map(([name, member]) => [name, change(member)]));
}
