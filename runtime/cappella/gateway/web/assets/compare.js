// The same prompt in two ways, side by side: what they say, what they cost, where they differ.

import { ask } from "./asking.js";
import { castLine, choices } from "./choices.js";
import { figuresTable, statusOf } from "./costs.js";
import { alikeness, wordDiff } from "./diff.js";
import { announce, fill, h, say } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { memberColumns } from "./members.js";
import { showProse } from "./prose.js";
import { remedyNote } from "./remedies.js";
import { bodyOf, catalogue } from "./request.js";
import { statusWords } from "./trouble.js";

const NAMES = ["First way", "Second way"];
const UNASKED = "Not asked yet";
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
        "The same question in two ways. They are asked one after the other, so that neither slows the other down;",
        " the second finds what both share in the engines' caches.",
      ),
    ),
    place,
  );
  const state = { running: null, isBegun: false };
  const onKey = () => state.isBegun || begin(place, api, state);
  document.addEventListener("cappella-key", onKey);
  begin(place, api, state);
  return {
    unmount() {
      document.removeEventListener("cappella-key", onKey);
      state.running?.stop();
    },
  };
}

async function begin(place, api, state) {
  let found;
  try {
    found = catalogue(await api.get("/v1/models"));
  } catch (error) {
    return void fill(place, remedyNote(api, error, { model: "", again: () => begin(place, api, state) }).element);
  }
  if (found.ensembles.length === 0) return void fill(place, h("p", {}, "This key may call no ensemble."));
  state.isBegun = true;
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
  const go = h("button", { type: "submit", className: "primary" }, "Compare");
  const example = found.ensembles[0].example;
  const form = h(
    "form",
    { className: "compare-form" },
    h("label", { for: "compare-question" }, "Question"),
    text,
    h(
      "div",
      { className: "row" },
      go,
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
          "Take the example",
        ),
      sendKeysHint("compare-keys"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.running) state.running.stop();
    else if (text.value.trim()) compare(api, state, sides, text.value.trim(), go, difference);
  });
  sendOnEnter(text, () => state.running || form.requestSubmit());
  fill(place, form, h("div", { className: "sides" }, ...sides.map((each) => each.element)), difference);
}

async function compare(api, state, sides, question, go, difference) {
  difference.hidden = true;
  for (const each of sides) each.clear();
  say(go, "Stop");
  sides[1].wait();
  const runs = [];
  for (const each of sides) {
    state.running = ask(api, bodyOf(each.controls.value(), [], question), each.update);
    const run = await state.running.done;
    each.end(api, run);
    runs.push(run);
    if (run.phase !== "done") break;
  }
  state.running = null;
  say(go, "Compare");
  if (runs.length === 2 && runs.every((run) => run.phase === "done")) showDifference(difference, runs);
}

function side(name, found) {
  const cast = h("span", { className: "cast" });
  const controls = choices(found, { onChange: () => castLine(cast, controls) });
  castLine(cast, controls);
  const status = h("p", { className: "status" });
  const answer = h("div", { className: "prose answer" });
  const notice = h("div", { className: "notice" });
  const figures = figuresTable();
  const members = memberColumns();
  const who = h(
    "details",
    { hidden: true },
    h("summary", { className: "small muted" }, "Who said what"),
    members.element,
  );
  const element = h(
    "section",
    { className: "side", "aria-label": name },
    h("h2", {}, name),
    h("details", { className: "settings" }, h("summary", {}, cast), controls.element),
    h("div", { className: "result" }, status, notice, figures.element, answer, who),
  );
  say(status, UNASKED);
  return {
    element,
    controls,
    clear() {
      say(status, UNASKED);
      fill(notice);
      figures.clear();
      showProse(answer, "");
      who.hidden = true;
    },
    wait: () => say(status, WAITING),
    update(run, nowMs) {
      say(status, statusOf(run, nowMs));
      showProse(answer, run.answer.text);
      who.hidden = run.panel.length === 0;
      members.update(run, nowMs);
    },
    end(api, run) {
      announce(`${name}: ${run.phase === "done" ? "the answer is there" : run.phase}`);
      if (run.phase === "failed") {
        const note = remedyNote(api, run.error, {
          model: controls.value().model,
          again: () => element.closest(".comparing").querySelector("form").requestSubmit(),
        });
        fill(notice, note.element);
      }
      if (run.phase !== "done") return;
      const words = statusWords(run.fusion);
      if (words) fill(notice, h("div", { className: "note warn" }, words));
      figures.show(run);
    },
  };
}

function showDifference(element, [left, right]) {
  const runs = wordDiff(left.answer.text, right.answer.text);
  const share = Math.round(alikeness(runs) * 100);
  const isSame = runs.every((run) => run.kind === "same");
  const title = isSame ? "Both say the same, word for word" : `${share} % of the words are the same`;
  const key = h("p", { className: "small muted" }, h("del", {}, WORDS.left), " ", h("ins", {}, WORDS.right));
  const words = h("p", { className: "words" }, ...runs.flatMap(marked));
  fill(element, h("h2", {}, "The difference"), h("p", {}, `${title}.`), !isSame && key, !isSame && words);
  element.hidden = false;
}

const WORDS = { left: "only in the first", right: "only in the second" };

/** A run of words as it stands, or as what only one text has; screen readers hear which. */
function marked(run) {
  if (run.kind === "same") return [run.text];
  const text = run.text.trimEnd();
  const aside = (words) => h("span", { className: "unseen" }, words);
  const tag = run.kind === "left" ? "del" : "ins";
  return [h(tag, {}, aside(`[${WORDS[run.kind]}: `), text, aside("]")), run.text.slice(text.length) || " "];
}
