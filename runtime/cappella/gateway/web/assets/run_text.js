// The progress and the outcome of a run as text.

import { formatSeconds, formatTokens, joinNames } from "./format.js";
import { pendingMembers } from "./run_state.js";

const ALL_PENDING_MS = 2000;
const JUDGE_ROLES = ["agreement", "analysis", "choice", "score", "fold", "final"];

/** The progress of a run in one line. */
export function progressText(run, nowMs) {
  const spent = formatSeconds((run.endedMs ?? nowMs) - run.startedMs);
  switch (run.phase) {
    case "sent":
      return `Sent, ${spent}`;
    case "panel":
      return panelStatus(run, nowMs);
    case "analysis":
      return `${waitText(run, run.judge) ?? `${run.judge} compares the answers`}, ${spent}`;
    case "judge":
      return `${(run.gate?.bypass ? run.gate.model : run.judge) ?? "The chosen member"} writes, ${spent}`;
    case "done":
      return doneStatus(run);
    case "stopped":
      return `Stopped after ${spent}`;
    default:
      return run.error?.code === "model_not_ready" ? "Not started" : `Failed after ${spent}`;
  }
}

/** Why a member gave no answer, in words; an unknown reason as it stands. */
export function memberReasonText(reason) {
  return MEMBER_REASONS[reason] ?? reason;
}

const MEMBER_REASONS = {
  straggler: "enough others were done, so it was cancelled and the answer is without it",
  deadline: "it was not done by the deadline",
  quorum_unreachable: "too many others had failed, so it was cancelled",
  not_ready: "its engine is not ready",
  engine_broke: "its engine broke the connection",
  empty_answer: "its answer was empty",
  invalid_format: "its answer does not have the requested format",
  images_not_supported: "it does not accept images",
  context_length_exceeded: "the conversation is longer than its context",
  budget: "the token budget of the run was used up",
};

/** Why the status of a run is not `ok`, or without whom it is; null if neither. */
export function outcomeText(fusion) {
  const late = fusion.failed_models.filter((each) => each.reason === "straggler");
  const failed = fusion.failed_models.filter((each) => each.reason !== "straggler").map((each) => each.model);
  switch (fusion.status) {
    case "degraded":
      if (fusion.failure_reason === "layer_below_quorum") {
        return "Degraded: too few members answered in a later round, so the answers of the round before were used.";
      }
      return fusion.failure_reason
        ? `Degraded: the judge failed (${fusion.failure_reason.replaceAll("_", " ")}).${fallbackText(fusion)}`
        : `Degraded: ${joinNames(failed)} gave no answer. The other answers were enough.`;
    case "single":
      return "Only one member answered: there was nothing to compare.";
    case "bypassed":
      return `One model answered alone${fusion.gate ? `: ${fusion.gate.reason}` : "."}`;
    default:
      return late.length ? withoutText(late) : null;
  }
}

function withoutText(late) {
  const names = joinNames(late.map((each) => each.model));
  const after = late[0].grace_ms === undefined ? "" : ` within ${formatSeconds(late[0].grace_ms)}`;
  return `Answered without ${names}: enough others were done, and it did not finish${after}.`;
}

/** That a member or the judge waits for its engine; null if it does not. */
function waitText(run, name) {
  const reason = run.waits[name];
  return reason ? `${name} ${reason === "asleep" ? "was asleep, and wakes" : "waits for its turn"}` : null;
}

function fallbackText(fusion) {
  return fusion.chosen ? ` The answer is that of ${fusion.chosen}, which is most like the others.` : "";
}

function panelStatus(run, nowMs) {
  const pending = pendingMembers(run);
  const spentMs = nowMs - run.startedMs;
  if (pending.length === 0) {
    const reading = run.judge ? `${run.judge} reads the answers` : "The answers are compared";
    return `${waitText(run, run.judge) ?? reading}, ${formatSeconds(spentMs)}`;
  }
  const round = run.round > 1 ? `Round ${run.round}: ` : "";
  const isEarly = pending.length === run.panel.length && spentMs < ALL_PENDING_MS;
  if (isEarly) return `${round}${run.panel.length} members answer`;
  return `${round}waiting for ${joinNames(pending)}, ${formatSeconds(spentMs)}${graceText(run, pending, nowMs)}`;
}

/** When the answer is given without those that are late; nothing while one of them waits for its engine. */
function graceText(run, pending, nowMs) {
  const isWaiting = pending.some((name) => ["waking", "queued"].includes(run.members[name].state));
  if (!run.grace || isWaiting) return "";
  return `, answer without ${pending.length > 1 ? "them" : "it"} in ${formatSeconds(Math.max(0, run.grace.endsMs - nowMs))}`;
}

function doneStatus(run) {
  const { timings, usage } = run.fusion;
  return `${participants(run)} · ${formatSeconds(timings.total_ms)} · ${formatTokens(usage.total_tokens)}`;
}

function participants({ fusion, usage, gate }) {
  if (fusion.status === "bypassed") return `${gate.model} alone`;
  const isJudged = usage.fusion_details.some((call) => JUDGE_ROLES.includes(call.role));
  const end = isJudged ? fusion.judge_model : fusion.strategy === "vote" ? "a vote" : "no judge";
  return `${joinNames(fusion.analysis_models)}, then ${end}`;
}
