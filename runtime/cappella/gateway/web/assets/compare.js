// The Compare view: one question asked in two ways, their figures, and the difference of the answers.

import { comparedSide } from "./compare_side.js";
import { voting } from "./compare_votes.js";
import { similarity, wordDiff } from "./diff.js";
import { fill, h, setText } from "./dom.js";
import { sendKeysHint, sendOnEnter } from "./enter_key.js";
import { errorNote } from "./error_note.js";
import { ownerOf } from "./kept_conversations.js";
import { readModels } from "./request.js";
import { startRun } from "./run_stream.js";

const NAMES = ["First way", "Second way"];

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
  const state = { running: null, owner: null };
  // What was asked and answered with one key is not shown with another.
  const onKey = () => {
    if (state.owner === ownerOf(api.key)) return;
    state.running?.stop();
    loadModels(place, api, state);
  };
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
  state.owner = ownerOf(api.key);
  const blind = h("input", { type: "checkbox", id: "compare-blind" });
  const sides = NAMES.map((name) => comparedSide(name, found, () => state.isBlind));
  const votes = voting(api.key);
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
      h("label", { className: "small compare-blind", for: "compare-blind" }, blind, " Blind: which way answered where is told after the vote"),
      sendKeysHint("compare-keys"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.running) state.running.stop();
    else if (text.value.trim()) {
      state.isBlind = blind.checked;
      compare(api, state, { sides, votes, button, difference }, text.value.trim());
    }
  });
  sendOnEnter(text, () => state.running || form.requestSubmit());
  const both = h("div", { className: "sides" }, ...sides.map((each) => each.element));
  fill(place, form, both, votes.element, difference, votes.leaderboard);
}

async function compare(api, state, { sides, votes, button, difference }, question) {
  difference.hidden = true;
  votes.hide();
  for (const each of sides) each.clear();
  setText(button, "Stop");
  sides[1].wait();
  // The ways by the side in which each answers: where it is blind, by lot.
  const askers = state.isBlind && Math.random() < 0.5 ? sides.toReversed() : sides;
  const ways = askers.map((each) => each.way());
  const runs = [];
  for (const [at, each] of sides.entries()) {
    state.running = startRun(api, askers[at].body(question), each.update);
    const run = await state.running.done;
    each.end(api, run);
    runs.push(run);
    if (run.phase !== "done") break;
  }
  state.running = null;
  setText(button, "Compare");
  const isWhole = runs.length === 2 && runs.every((run) => run.phase === "done");
  const tell = () => {
    if (!state.isBlind) return;
    state.isBlind = false;
    sides.slice(0, runs.length).forEach((each, at) => each.tell(`By ${ways[at]}`));
  };
  if (!isWhole) return tell();
  showDifference(difference, runs);
  votes.open({ question, ways, answers: runs.map((run) => run.answer.text), voted: tell });
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
