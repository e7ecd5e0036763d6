// One side of a comparison: what to ask, and the answer with its figures.

import { announce, fill, h, setText } from "./dom.js";
import { errorNote } from "./error_note.js";
import { figuresTable } from "./figures_table.js";
import { formatSeconds } from "./format.js";
import { foundSources } from "./found_sources.js";
import { showMarkdown } from "./markdown_view.js";
import { memberColumns } from "./members.js";
import { describeChoice, modelRequestBody, requestBody } from "./request.js";
import { optionsText, runOptions, showOptions } from "./run_options.js";
import { outcomeText, progressText } from "./run_text.js";

const NOT_ASKED = "Not asked yet";
const MAX_PROMPT_CHARACTERS = 60;
const WAITING = "Waits until the first way is done";

/** The side of this name. While `isBlind()` it shows nothing that tells which way has answered here. */
export function comparedSide(name, found, isBlind) {
  const summary = h("span", { className: "options-summary" });
  const controls = runOptions(found, { onChange: () => showOptions(summary, controls), withModels: true });
  showOptions(summary, controls);
  const status = h("p", { className: "status" });
  const origin = h("p", { className: "small muted", hidden: true });
  const answer = h("div", { className: "prose answer" });
  const notice = h("div", { className: "notice" });
  const figures = figuresTable();
  const sources = foundSources(`Sources of the answer, ${name}`);
  const members = memberColumns();
  const answers = h(
    "details",
    { hidden: true },
    h("summary", { className: "small muted" }, "The members' answers"),
    members.element,
  );
  const element = h(
    "section",
    { className: "side", "aria-label": name },
    h("h2", {}, name),
    h("details", { className: "settings" }, h("summary", {}, summary), controls.element),
    h("div", { className: "result" }, status, origin, notice, figures.element, answer, sources.element, answers),
  );
  setText(status, NOT_ASKED);
  let ended = null;
  return {
    element,
    controls,
    /** The way that is chosen here, in one line. */
    way() {
      const { system, ...choice } = controls.value();
      const prompt = system && `system prompt “${system.slice(0, MAX_PROMPT_CHARACTERS)}”`;
      return [optionsText(controls), describeChoice({ ...choice, panel: null, judge: "" }), prompt].filter(Boolean).join(" · ");
    },
    body: (question) =>
      controls.ensemble() ? requestBody(controls.value(), [], question) : modelRequestBody(controls.value(), question),
    clear() {
      setText(status, NOT_ASKED);
      fill(notice);
      figures.clear();
      showMarkdown(answer, "");
      answers.hidden = origin.hidden = sources.element.hidden = true;
      ended = null;
    },
    wait: () => setText(status, isBlind() ? "Waits" : WAITING),
    update(run, nowMs) {
      setText(status, isBlind() ? "Answers" : statusText(run, nowMs));
      showMarkdown(answer, run.answer.text);
      if (!isBlind()) showMembers(run, nowMs);
    },
    end(api, run) {
      announce(`${name}: ${run.phase === "done" ? "the answer is complete" : run.phase}`);
      if (run.phase === "failed") {
        const note = errorNote(api, run.error, {
          model: controls.value().model,
          again: () => element.closest(".comparing").querySelector("form").requestSubmit(),
        });
        fill(notice, note.element);
      }
      ended = run;
      if (isBlind() && run.phase === "done") setText(status, "Answered");
      else this.tell(null);
    },
    /** Show what was hidden while it was blind, and `words` on whose answer it was. */
    tell(words) {
      origin.hidden = words === null;
      setText(origin, words ?? "");
      setText(status, statusText(ended, ended.endedMs));
      if (ended.phase !== "done") return;
      const outcome = ended.fusion ? outcomeText(ended.fusion) : ended.warning;
      if (outcome) fill(notice, h("div", { className: "note warn" }, outcome));
      figures.show(ended);
      showMembers(ended, ended.endedMs);
      // Not while it is blind: who found a passage tells which way has answered.
      sources.show(ended, answer);
      sources.link(ended, [...members.columns.values()].map((column) => column.text));
    },
  };

  function showMembers(run, nowMs) {
    members.update(run, nowMs);
    answers.hidden = run.panel.length === 0;
  }
}

/** As of any run; a single model has no panel and no judge. */
function statusText(run, nowMs) {
  if (run.runId !== null || !["judge", "done"].includes(run.phase)) return progressText(run, nowMs);
  return `${run.phase === "done" ? "Answered in" : "Writes,"} ${formatSeconds((run.endedMs ?? nowMs) - run.startedMs)}`;
}
