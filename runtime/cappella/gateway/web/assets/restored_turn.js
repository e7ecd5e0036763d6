// A turn as it was kept: the answer is shown at once, how it was made once somebody looks.

import { h } from "./dom.js";
import { describeError } from "./errors.js";
import { showExplanation } from "./explanation.js";
import { outcomeText } from "./run_text.js";
import { sourcesSwitch } from "./sources_switch.js";
import { turnView } from "./turn.js";

const LEFT = "This run was cancelled when the page was left.";
const STOPPED = "You stopped this run.";

/** The turn with its view, from what `keptTurn` kept. */
export function restoredTurn(kept) {
  const { run, answer } = kept;
  const view = turnView(kept);
  view.restore(answer, run, () => showEvidence(view, run));
  const note = noteOf(run);
  if (note) view.notice.append(note);
  return { ...kept, view };
}

function showEvidence(view, run) {
  view.update(run, run.endedMs);
  if (run.phase !== "done") return;
  if (run.fusion.responses?.length) view.actions.append(sourcesSwitch());
  showExplanation(view, run);
}

function noteOf(run) {
  if (!run) return note("", LEFT);
  if (run.phase === "stopped") return note("", STOPPED);
  if (run.phase === "failed") return failureNote(run.error);
  const words = outcomeText(run.fusion);
  return words && note("warn", words);
}

function failureNote(error) {
  const { title, words } = describeError(error);
  return h("div", { className: "note bad" }, h("strong", {}, title), h("p", {}, words));
}

function note(kind, words) {
  return h("div", { className: `note ${kind}` }, h("p", {}, words));
}
