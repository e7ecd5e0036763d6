// One turn of a conversation: the question, the answer, and how it was made.

import { analysisView } from "./analysis_view.js";
import { contestedLine } from "./contested.js";
import { copyButton } from "./copy.js";
import { announce, fill, h, setText } from "./dom.js";
import { foundSources } from "./found_sources.js";
import { showMarkdown } from "./markdown_view.js";
import { memberColumns } from "./members.js";
import { excerpt, questionView } from "./question.js";
import { isFinished, pendingMembers } from "./run_state.js";
import { outcomeText, progressText } from "./run_text.js";
import { sourcesSwitch } from "./sources_switch.js";

/** The elements of a turn; `update(run, nowMs)` shows the progress of its run, `end(run)` the outcome. */
export function turnView(asked) {
  const status = h("p", { className: "status" });
  const steps = h("ol", { className: "steps", "aria-label": "Progress of the run" });
  const answer = h("div", { className: "prose answer" });
  const waiting = h("div", { className: "answer-waits", "aria-hidden": "true" });
  const notice = h("div", { className: "notice" });
  const trace = h("div", { className: "trace-place" });
  const found = foundSources();
  const actions = h("div", { className: "row actions", hidden: true });
  const members = memberColumns();
  const comparison = analysisView();
  const contested = contestedLine();
  const compared = h(
    "section",
    { className: "part", hidden: true },
    h("h3", {}, "The judge compares"),
    comparison.element,
  );
  const panel = h("section", { className: "part", hidden: true }, h("h3", {}, "The members' answers"), members.element);
  const more = h("div", { className: "more" });
  const evidence = h(
    "details",
    { className: "evidence", open: true },
    h("summary", {}, "How this answer was made"),
    compared,
    panel,
    more,
  );
  const progress = h("div", { className: "progress" }, steps, status);
  const result = h(
    "div",
    { className: "result", role: "group", "aria-label": "Answer" },
    progress,
    contested.element,
    waiting,
    answer,
    trace,
    found.element,
    notice,
    actions,
  );
  const question = questionView(asked);
  const element = h("article", { className: "turn", "aria-label": excerpt(asked) }, question, result, evidence);
  let lastAnnounced = "";

  return {
    element,
    question,
    answer,
    notice,
    actions,
    evidence,
    trace,
    found,
    more,
    members,
    comparison,
    fold: () => {
      evidence.open = false;
    },
    /** Show a turn that was kept: its answer at once, how it was made when that is unfolded. */
    restore(text, run, unfolded) {
      steps.hidden = waiting.hidden = true;
      actions.hidden = evidence.open = false;
      evidence.hidden = !run?.panel.length;
      showMarkdown(answer, text);
      found.show(run, answer);
      if (text) actions.append(copyButton(() => text, "Copy the answer"));
      if (!run) return void (progress.hidden = true);
      setText(status, progressText(run, run.endedMs));
      lastAnnounced = announcement(run);
      // The event of the folding above is still to come.
      const onToggle = () => {
        if (!evidence.open) return;
        evidence.removeEventListener("toggle", onToggle);
        unfolded();
      };
      evidence.addEventListener("toggle", onToggle);
    },
    update(run, nowMs) {
      element.dataset.phase = run.phase;
      drawSteps(steps, run);
      panel.hidden = run.panel.length === 0 || run.gate?.bypass === true;
      members.update(run, nowMs);
      compared.hidden = run.analysis === null;
      if (run.analysis && comparison.update(run)) contested.show(comparison.element);
      // While the members write, they are what there is to read; once the answer is written, it is.
      waiting.hidden = !["sent", "judge"].includes(run.phase) || run.answer.text !== "";
      if (run.answer.text) members.fold();
      showMarkdown(answer, run.answer.text);
      setText(status, progressText(run, nowMs));
      const words = announcement(run);
      if (words !== lastAnnounced) announce((lastAnnounced = words));
    },
    end(run) {
      const words = run.fusion && outcomeText(run.fusion);
      found.show(run, answer);
      if (words) fill(notice, h("div", { className: "note warn" }, h("p", {}, words)));
      actions.hidden = false;
      if (run.answer.text) actions.prepend(copyButton(() => run.answer.text, "Copy the answer"));
      if (run.phase === "stopped") notice.append(h("div", { className: "note" }, h("p", {}, "You stopped this run.")));
      if (run.fusion?.responses?.length) actions.append(sourcesSwitch());
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
  element.hidden = isFinished(run);
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

/** What a screen reader is told: changes of state, not tokens or seconds. */
function announcement(run) {
  switch (run.phase) {
    case "panel": {
      const done = run.panel.length - pendingMembers(run).length;
      return done ? `${done} of ${run.panel.length} members are done` : `${run.panel.length} members answer`;
    }
    case "analysis":
      return "The judge compares the answers";
    case "judge":
      return "The judge writes the answer";
    case "done":
      return "The answer is complete";
    case "failed":
      return `The run failed: ${run.error?.message ?? ""}`;
    default:
      return run.phase === "stopped" ? "Stopped" : "Sent";
  }
}
