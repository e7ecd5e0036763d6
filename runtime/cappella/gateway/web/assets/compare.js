// The Compare view: one question asked in two ways, their figures, and the difference of the answers.

import { similarity, wordDiff } from "./diff.js";
import { announce, fill, h, setText } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { errorNote } from "./error_note.js";
import { figuresTable } from "./figures_table.js";
import { showMarkdown } from "./markdown_view.js";
import { memberColumns } from "./members.js";
import { readModels, requestBody } from "./request.js";
import { runOptions, showOptions } from "./run_options.js";
import { startRun } from "./run_stream.js";
import { outcomeText, progressText } from "./run_text.js";

const NAMES = ["First way", "Second way"];
const NOT_ASKED = "Not asked yet";
const WAITING = "Waits until the first way is done";

export function mount(root, api) {
  const place = h("div", { className: "comparing" });
  root.append(
    h(
      "header",
      { className: "compare-head" },
      h("h1", {}, "Compare"),
      h(
        "p",
        { className: "lead muted" },
        "One question, asked in two ways. They run one after the other, so that neither slows the other down;",
        " the second can use what the first left in the engines' caches.",
      ),
    ),
    place,
  );
  const state = { running: null, isLoaded: false };
  const onKey = () => state.isLoaded || loadModels(place, api, state);
  document.addEventListener("cappella-key", onKey);
  loadModels(place, api, state);
  return {
    unmount() {
      document.removeEventListener("cappella-key", onKey);
      state.running?.stop();
    },
  };
}

async function loadModels(place, api, state) {
  let found;
  try {
    found = readModels(await api.get("/v1/models"));
  } catch (error) {
    const again = () => loadModels(place, api, state);
    return void fill(place, errorNote(api, error, { model: "", again }).element);
  }
  if (found.ensembles.length === 0) return void fill(place, h("p", {}, "This key is not allowed to call any ensemble."));
  state.isLoaded = true;
  const sides = NAMES.map((name) => side(name, found));
  const second = sides[1].controls;
  const { presets } = second.ensemble();
  second.set({
    ...second.value(),
    ...(found.ensembles[1]
      ? { model: found.ensembles[1].id }
      : presets[0]
        ? { preset: presets[0] }
        : { strategy: "select" }),
  });
  const difference = h("section", { className: "part difference", hidden: true });
  const text = h("textarea", {
    id: "compare-question",
    rows: 2,
    required: true,
    "aria-describedby": "compare-keys",
  });
  const button = h("button", { type: "submit", className: "primary" }, "Compare");
  const example = found.ensembles[0].examples[0];
  const form = h(
    "form",
    { className: "compare-form" },
    h("label", { for: "compare-question" }, "Question"),
    text,
    h(
      "div",
      { className: "row" },
      button,
      example &&
        h(
          "button",
          {
            type: "button",
            onclick: () => {
              text.value = example;
              text.focus();
            },
          },
          "Use the example",
        ),
      sendKeysHint("compare-keys"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.running) state.running.stop();
    else if (text.value.trim()) compare(api, state, sides, text.value.trim(), button, difference);
  });
  sendOnEnter(text, () => state.running || form.requestSubmit());
  fill(place, form, h("div", { className: "sides" }, ...sides.map((each) => each.element)), difference);
}

async function compare(api, state, sides, question, button, difference) {
  difference.hidden = true;
  for (const each of sides) each.clear();
  setText(button, "Stop");
  sides[1].wait();
  const runs = [];
  for (const each of sides) {
    state.running = startRun(api, requestBody(each.controls.value(), [], question), each.update);
    const run = await state.running.done;
    each.end(api, run);
    runs.push(run);
    if (run.phase !== "done") break;
  }
  state.running = null;
  setText(button, "Compare");
  if (runs.length === 2 && runs.every((run) => run.phase === "done")) showDifference(difference, runs);
}

function side(name, found) {
  const summary = h("span", { className: "options-summary" });
  const controls = runOptions(found, { onChange: () => showOptions(summary, controls) });
  showOptions(summary, controls);
  const status = h("p", { className: "status" });
  const answer = h("div", { className: "prose answer" });
  const notice = h("div", { className: "notice" });
  const figures = figuresTable();
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
    h("div", { className: "result" }, status, notice, figures.element, answer, answers),
  );
  setText(status, NOT_ASKED);
  return {
    element,
    controls,
    clear() {
      setText(status, NOT_ASKED);
      fill(notice);
      figures.clear();
      showMarkdown(answer, "");
      answers.hidden = true;
    },
    wait: () => setText(status, WAITING),
    update(run, nowMs) {
      setText(status, progressText(run, nowMs));
      showMarkdown(answer, run.answer.text);
      answers.hidden = run.panel.length === 0;
      members.update(run, nowMs);
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
      if (run.phase !== "done") return;
      const words = outcomeText(run.fusion);
      if (words) fill(notice, h("div", { className: "note warn" }, words));
      figures.show(run);
    },
  };
}

function showDifference(element, [left, right]) {
  const runs = wordDiff(left.answer.text, right.answer.text);
  const share = Math.round(similarity(runs) * 100);
  const isSame = runs.every((run) => run.kind === "same");
  const title = isSame ? "Both say the same, word for word" : `${share} % of the words are the same`;
  const key = h("p", { className: "small muted" }, h("del", {}, WORDS.left), " ", h("ins", {}, WORDS.right));
  const words = h("p", { className: "words" }, ...runs.flatMap(marked));
  fill(element, h("h2", {}, "The difference"), h("p", {}, `${title}.`), !isSame && key, !isSame && words);
  element.hidden = false;
}

const WORDS = { left: "only in the first", right: "only in the second" };

/** A run of words as elements; screen readers hear which text has it. */
function marked(run) {
  if (run.kind === "same") return [run.text];
  const text = run.text.trimEnd();
  const aside = (words) => h("span", { className: "unseen" }, words);
  const tag = run.kind === "left" ? "del" : "ins";
  return [h(tag, {}, aside(`[${WORDS[run.kind]}: `), text, aside("]")), run.text.slice(text.length) || " "];
}
