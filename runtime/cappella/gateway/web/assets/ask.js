// The view in which a conversation is held with an ensemble.

import { ask } from "./asking.js";
import { composer } from "./composer.js";
import { fill, h } from "./dom.js";
import { remedyNote } from "./remedies.js";
import { STRATEGIES, bodyOf, catalogue, spelt } from "./request.js";
import { turnView } from "./turn.js";
import { showWhy } from "./why.js";

const KEPT = "cappella-conversation";

export function mount(root, api) {
  const turns = [];
  const log = h("div", { className: "conversation" });
  const welcome = h("section", { className: "welcome" });
  const box = h("div", { className: "composer-place" });
  const state = { api, turns, log, welcome, writer: null, running: null };
  root.append(h("h1", { className: "unseen" }, "Ask"), welcome, log, box);
  begin(state, box);
  const onKey = () => state.writer === null && begin(state, box);
  document.addEventListener("cappella-key", onKey);
  return {
    unmount() {
      document.removeEventListener("cappella-key", onKey);
      state.running?.stop();
    },
  };
}

/** Find out what may be asked, then offer to. */
async function begin(state, box) {
  let found;
  try {
    found = catalogue(await state.api.get("/v1/models"));
    // A key that was given has both the note that asked for it and the view begin.
    if (state.writer) return;
  } catch (error) {
    const note = remedyNote(state.api, error, { model: "", again: () => begin(state, box) });
    fill(box, note.element);
    return;
  }
  if (found.ensembles.length === 0) {
    fill(box, h("div", { className: "note warn" }, h("p", {}, "This key may call no ensemble.")));
    return;
  }
  state.writer = composer(found, {
    send: (question, pastes) => send(state, { question, pastes }),
    stop: () => state.running?.stop(),
    clear: () => clear(state),
  });
  fill(box, state.writer.element);
  greet(state);
  restore(state);
  state.writer.focus();
}

function greet({ welcome, writer }) {
  const { panel, judge, example } = writer.controls.ensemble();
  const asked =
    example && h("button", { type: "button", className: "example", onclick: () => writer.put(example) }, example);
  fill(
    welcome,
    h("p", { className: "display" }, "Ask several models at once."),
    h(
      "p",
      { className: "lead muted" },
      `${panel.length} members answer side by side. ${judge} compares them and writes one answer,`,
      " and you see who said what.",
    ),
    asked && h("p", {}, h("span", { className: "eyebrow" }, "Try")),
    asked,
  );
}

function send(state, { question, pastes }, choice = state.writer.controls.value()) {
  if (state.running) return;
  const { api, turns, log, writer } = state;
  const before = [...turns];
  const view = turnView({ question, pastes, how: spelt(choice) });
  const turn = { question, pastes, choice, answer: "", view };
  turns.at(-1)?.view.fold();
  // Who asks on does not wait for what could not be asked before.
  turns.at(-1)?.forget?.();
  turns.push(turn);
  log.append(view.element);
  changed(state);
  writer.running(true);
  view.element.scrollIntoView({ block: "start" });
  state.running = ask(api, bodyOf(choice, before, question), view.update);
  state.running.done.then((run) => over(state, turn, run));
}

function over(state, turn, run) {
  state.running = null;
  state.writer.running(false);
  turn.answer = run.phase === "done" ? run.answer.text : "";
  turn.view.end(run);
  keep(state.turns);
  if (run.phase === "done") showWhy(turn.view, run);
  if (run.phase === "failed") {
    const again = () => {
      note.forget();
      replace(state, turn, turn.choice);
    };
    const note = remedyNote(state.api, run.error, { model: turn.choice.model, again });
    turn.forget = note.forget;
    turn.view.notice.append(note.element);
  }
  if (run.phase === "stopped")
    turn.view.notice.append(h("div", { className: "note" }, h("p", {}, "You stopped this run.")));
  turn.view.actions.append(...otherWays(state, turn));
}

/** Ask the same again in another way; it takes the turn's place at the end of the conversation. */
function otherWays(state, turn) {
  const again = (strategy) =>
    replace(state, turn, strategy === null ? turn.choice : { ...turn.choice, strategy, analysis: "" });
  const menu = h(
    "select",
    { "aria-label": "Ask again in another way" },
    h("option", { value: "" }, "Ask again…"),
    h("option", { value: "same" }, "In the same way"),
    ...Object.keys(STRATEGIES).map((name) => h("option", { value: name }, `With ${name}`)),
  );
  menu.addEventListener("change", () => {
    const wanted = menu.value;
    menu.value = "";
    if (wanted) again(wanted === "same" ? null : wanted);
  });
  return [menu];
}

function replace(state, turn, choice) {
  if (state.running) return;
  // What was said after it was said to another answer.
  for (const gone of state.turns.splice(state.turns.indexOf(turn))) {
    gone.forget?.();
    gone.view.element.remove();
  }
  send(state, turn, choice);
}

function clear(state) {
  state.running?.stop();
  for (const turn of state.turns) turn.forget?.();
  state.turns.length = 0;
  fill(state.log);
  changed(state);
}

function changed({ turns, welcome, writer }) {
  welcome.hidden = turns.length > 0;
  writer.begun(turns.length > 0);
  keep(turns);
}

/** In this tab alone, so that a reload does not lose what was said. */
function keep(turns) {
  const kept = turns.map(({ question, pastes, choice, answer }) => ({ question, pastes, choice, answer }));
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
}

function restore(state) {
  if (state.turns.length) return;
  for (const { question, pastes = [], choice, answer } of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
    const view = turnView({ question, pastes, how: spelt(choice) });
    const turn = { question, pastes, choice, answer, view };
    view.recall(answer);
    view.actions.append(...otherWays(state, turn));
    state.turns.push(turn);
    state.log.append(view.element);
  }
  changed(state);
}
