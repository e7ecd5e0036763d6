// One turn of a conversation: the question, the answer, and how it came about.

import { comparisonView } from "./comparison.js";
import { copyButton } from "./copy.js";
import { statusOf } from "./costs.js";
import { announce, fill, h, say } from "./dom.js";
import { memberColumns } from "./members.js";
import { showProse } from "./prose.js";
import { excerpt, questionView } from "./question.js";
import { isOver, waitedFor } from "./run.js";
import { statusWords } from "./trouble.js";

/** The elements of a turn; `update(run, nowMs)` shows how far it is, `end(run)` what came of it. */
export function turnView({ question, pastes, how }) {
  const status = h("p", { className: "status" });
  const steps = h("ol", { className: "steps", "aria-label": "How far the run is" });
  const answer = h("div", { className: "prose answer" });
  const waiting = h("div", { className: "answer-waits", "aria-hidden": "true" });
  const notice = h("div", { className: "notice" });
  const trace = h("div", { className: "trace-place" });
  const actions = h("div", { className: "row actions", hidden: true });
  const members = memberColumns();
  const comparison = comparisonView();
  const compared = h(
    "section",
    { className: "part", hidden: true },
    h("h3", {}, "The judge compares"),
    comparison.element,
  );
  const panel = h("section", { className: "part", hidden: true }, h("h3", {}, "Who said what"), members.element);
  const more = h("div", { className: "more" });
  const evidence = h(
    "details",
    { className: "evidence", open: true },
    h("summary", {}, "How it came about"),
    panel,
    compared,
    more,
  );
  const progress = h("div", { className: "progress" }, steps, status);
  const result = h(
    "div",
    { className: "result", role: "group", "aria-label": "Answer" },
    progress,
    waiting,
    answer,
    trace,
    notice,
    actions,
  );
  const element = h(
    "article",
    { className: "turn", "aria-label": excerpt(question) },
    questionView(question, pastes, how),
    result,
    evidence,
  );
  let lastSaid = "";

  return {
    element,
    answer,
    notice,
    actions,
    trace,
    more,
    members,
    fold: () => {
      evidence.open = false;
    },
    /** Show a turn that an earlier page has heard; how it came about went with that page. */
    recall(text) {
      evidence.hidden = progress.hidden = waiting.hidden = true;
      actions.hidden = false;
      showProse(answer, text);
      if (text) actions.append(copyButton(() => text, "Copy the answer"));
      else fill(notice, h("div", { className: "note" }, h("p", {}, "This run was cut off when the page was left.")));
    },
    update(run, nowMs) {
      element.dataset.phase = run.phase;
      drawSteps(steps, run);
      panel.hidden = run.panel.length === 0 || run.gate?.bypass === true;
      members.update(run, nowMs);
      compared.hidden = run.analysis === null;
      if (run.analysis) comparison.update(run);
      waiting.hidden = isOver(run) || run.answer.text !== "";
      showProse(answer, run.answer.text);
      say(status, statusOf(run, nowMs));
      const said = announced(run);
      if (said !== lastSaid) announce((lastSaid = said));
    },
    end(run) {
      const words = run.fusion && statusWords(run.fusion);
      if (words) fill(notice, h("div", { className: "note warn" }, h("p", {}, words)));
      actions.hidden = false;
      if (run.answer.text) actions.prepend(copyButton(() => run.answer.text, "Copy the answer"));
      evidence.hidden = run.panel.length === 0;
    },
  };
}

const STEPS = [
  ["panel", "The panel answers"],
  ["analysis", "The judge compares"],
  ["judge", "The judge writes"],
];

function drawSteps(element, run) {
  const reached = { sent: -1, panel: 0, analysis: 1, judge: 2 }[run.phase] ?? 3;
  element.hidden = isOver(run);
  if (element.dataset.reached === String(reached)) return;
  element.dataset.reached = reached;
  fill(
    element,
    ...STEPS.map(([, title], number) => {
      const state = number < reached ? "past" : number === reached ? "now" : "to-come";
      return h("li", { className: state, "aria-current": state === "now" ? "step" : null }, title);
    }),
  );
}

/** The states worth hearing of: not tokens, not seconds. */
function announced(run) {
  switch (run.phase) {
    case "panel": {
      const over = run.panel.length - waitedFor(run).length;
      return over ? `${over} of ${run.panel.length} members are done` : `${run.panel.length} members answer`;
    }
    case "analysis":
      return "The judge compares the answers";
    case "judge":
      return "The judge writes the answer";
    case "done":
      return "The answer is there";
    case "failed":
      return `The run failed: ${run.error?.message ?? ""}`;
    default:
      return run.phase === "stopped" ? "Stopped" : "Sent";
  }
}
