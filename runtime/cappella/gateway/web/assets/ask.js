// The Ask view: a conversation with an ensemble.

import { createComposer } from "./composer.js";
import { fill, h } from "./dom.js";
import { errorNote } from "./error_note.js";
import { showExplanation } from "./explanation.js";
import { describeChoice, readModels, requestBody } from "./request.js";
import { startRun } from "./run_stream.js";
import { turnView } from "./turn.js";

const STORAGE_KEY = "cappella-conversation";

export function mount(root, api) {
  const turns = [];
  const log = h("div", { className: "conversation" });
  const welcome = h("section", { className: "welcome" });
  const box = h("div", { className: "composer-place" });
  const state = { api, turns, log, welcome, composer: null, running: null };
  root.append(h("h1", { className: "unseen" }, "Ask"), welcome, log, box);
  loadModels(state, box);
  const onKey = () => state.composer === null && loadModels(state, box);
  document.addEventListener("cappella-key", onKey);
  return {
    unmount() {
      document.removeEventListener("cappella-key", onKey);
      state.running?.stop();
    },
  };
}

/** Load the list of models, then show the composer. */
async function loadModels(state, box) {
  let found;
  try {
    found = readModels(await state.api.get("/v1/models"));
    // A new key makes both the error note and the view load the models.
    if (state.composer) return;
  } catch (error) {
    const note = errorNote(state.api, error, { model: "", again: () => loadModels(state, box) });
    fill(box, note.element);
    return;
  }
  if (found.ensembles.length === 0) {
    fill(box, h("div", { className: "note warn" }, h("p", {}, "This key is not allowed to call any ensemble.")));
    return;
  }
  state.strategies = Object.keys(found.strategies);
  state.composer = createComposer(found, {
    send: (question, pastes) => send(state, { question, pastes }),
    stop: () => state.running?.stop(),
    clear: () => clearConversation(state),
  });
  fill(box, state.composer.element);
  showWelcome(state);
  restoreConversation(state);
  state.composer.focus();
}

function showWelcome({ welcome, composer }) {
  const { panel, judge, examples, notice } = composer.controls.ensemble();
  const exampleButton = (example) =>
    h("button", { type: "button", className: "example", onclick: () => composer.setQuestion(example) }, example);
  fill(
    welcome,
    h("p", { className: "display" }, "Ask several models at once."),
    h(
      "p",
      { className: "lead muted" },
      `${panel.length} models answer side by side. ${judge} compares their answers and writes one from them,`,
      " and you see which model said what.",
    ),
    notice ? h("p", { className: "note" }, notice) : null,
    examples.length > 0 && h("p", {}, h("span", { className: "eyebrow" }, "Try")),
    h("div", { className: "examples" }, ...examples.map(exampleButton)),
  );
}

function send(state, { question, pastes }, choice = state.composer.controls.value()) {
  if (state.running) return;
  const { api, turns, log, composer } = state;
  const earlier = [...turns];
  const view = turnView({ question, pastes, how: describeChoice(choice) });
  const turn = { question, pastes, choice, answer: "", view };
  turns.at(-1)?.view.fold();
  // A new question ends the automatic retry of the one before.
  turns.at(-1)?.dispose?.();
  turns.push(turn);
  log.append(view.element);
  conversationChanged(state);
  composer.setRunning(true);
  view.element.scrollIntoView({ block: "start" });
  state.running = startRun(api, requestBody(choice, earlier, question), view.update);
  state.running.done.then((run) => finishTurn(state, turn, run));
}

function finishTurn(state, turn, run) {
  state.running = null;
  state.composer.setRunning(false);
  turn.answer = run.phase === "done" ? run.answer.text : "";
  turn.view.end(run);
  saveConversation(state.turns);
  if (run.phase === "done") showExplanation(turn.view, run);
  if (run.phase === "failed") {
    const again = () => {
      note.dispose();
      askAgain(state, turn, turn.choice);
    };
    const note = errorNote(state.api, run.error, { model: turn.choice.model, again });
    turn.dispose = note.dispose;
    turn.view.notice.append(note.element);
  }
  if (run.phase === "stopped")
    turn.view.notice.append(h("div", { className: "note" }, h("p", {}, "You stopped this run.")));
  turn.view.actions.append(askAgainMenu(state, turn));
}

/** The menu that asks the question again; the new turn replaces this one at the end of the conversation. */
function askAgainMenu(state, turn) {
  const again = (strategy) =>
    askAgain(state, turn, strategy === null ? turn.choice : { ...turn.choice, strategy, analysis: "" });
  const menu = h(
    "select",
    { "aria-label": "Ask again in another way" },
    h("option", { value: "" }, "Ask again…"),
    h("option", { value: "same" }, "In the same way"),
    ...state.strategies.map((name) => h("option", { value: name }, `With ${name}`)),
  );
  menu.addEventListener("change", () => {
    const way = menu.value;
    menu.value = "";
    if (way) again(way === "same" ? null : way);
  });
  return menu;
}

function askAgain(state, turn, choice) {
  if (state.running) return;
  // The later turns refer to the answer that is replaced.
  for (const removed of state.turns.splice(state.turns.indexOf(turn))) {
    removed.dispose?.();
    removed.view.element.remove();
  }
  send(state, turn, choice);
}

function clearConversation(state) {
  state.running?.stop();
  for (const turn of state.turns) turn.dispose?.();
  state.turns.length = 0;
  fill(state.log);
  conversationChanged(state);
}

function conversationChanged({ turns, welcome, composer }) {
  welcome.hidden = turns.length > 0;
  composer.setStarted(turns.length > 0);
  saveConversation(turns);
}

/** Save the conversation for this tab, so that it survives a reload. */
function saveConversation(turns) {
  const kept = turns.map(({ question, pastes, choice, answer }) => ({ question, pastes, choice, answer }));
  sessionStorage.setItem(STORAGE_KEY, JSON.stringify(kept));
}

function restoreConversation(state) {
  if (state.turns.length) return;
  for (const { question, pastes = [], choice, answer } of JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]")) {
    const view = turnView({ question, pastes, how: describeChoice(choice) });
    const turn = { question, pastes, choice, answer, view };
    view.restore(answer);
    view.actions.append(askAgainMenu(state, turn));
    state.turns.push(turn);
    state.log.append(view.element);
  }
  conversationChanged(state);
}
