// The Ask view: a conversation with an ensemble, beside the list of those that are kept.

import { createComposer } from "./composer.js";
import { fill, h } from "./dom.js";
import { errorNote } from "./error_note.js";
import { showExplanation } from "./explanation.js";
import { slicer } from "./later.js";
import { readModels, requestBody } from "./request.js";
import { restoredTurn } from "./restored_turn.js";
import { startRun } from "./run_stream.js";
import { conversationShelf } from "./shelf.js";
import { sizeInBody, sizeOfText, summaryQuestion, tooLongRemedy, withSummary } from "./too_long.js";
import { turnView } from "./turn.js";
import { addTurnMenu } from "./turn_menu.js";
import { showWelcome } from "./welcome.js";

const TOO_LONG = ["context_length_exceeded", "body_too_large"];
const BUSY = "Another question of this conversation is being answered: stop that, or wait for it.";

export function mount(root, api) {
  const welcome = h("section", { className: "welcome" });
  const place = h("div", { className: "conversation-place" });
  const box = h("div", { className: "composer-place" });
  const state = { api, welcome, place, composer: null, strategies: [], notices: {}, runsKept: null, wanted: null };
  state.shelf = conversationShelf(api, {
    show: (conversation, words) => showConversation(state, conversation, words),
    async restore(conversation, turns) {
      const pause = slicer();
      for (const kept of turns) {
        restoreTurn(state, conversation, kept);
        await pause();
      }
      conversation.turns.at(-1).view.evidence.open = true;
    },
  });
  const talk = h("div", { className: "talk" }, state.shelf.bar, welcome, place, box);
  root.append(h("h1", { className: "unseen" }, "Ask"), narrowHead(state.shelf), state.shelf.list, talk);
  loadModels(state, box);
  const onKey = () => {
    // A draft, its attachments and a system prompt belong to who wrote them, and each key has its ensembles.
    if (state.shelf.keyChanged()) {
      state.composer = null;
      fill(box);
    }
    if (state.composer === null) loadModels(state, box);
  };
  document.addEventListener("cappella-key", onKey);
  return {
    /** Open the conversation of this id; without one, the view stays as it is. */
    show: (id) => (state.composer ? state.shelf.open(id) : void (state.wanted = id)),
    unmount() {
      document.removeEventListener("cappella-key", onKey);
      state.shelf.current().running?.stop();
    },
  };
}

/** Where there is no room for the column: the button that opens it. */
function narrowHead({ startNew }) {
  const menu = { type: "button", className: "quiet", popovertarget: "conversations" };
  const start = { type: "button", className: "quiet", "aria-label": "New conversation", onclick: startNew };
  return h("div", { className: "row kept-narrow" }, h("button", menu, "Conversations"), h("button", start, "New"));
}

/** Load the list of models, then show the composer. */
async function loadModels(state, box) {
  const { api, shelf } = state;
  let found;
  try {
    found = readModels(await api.get("/v1/models"));
    // A new key makes both the error note and the view load the models.
    if (state.composer) return;
  } catch (error) {
    const note = errorNote(api, error, { model: "", again: () => loadModels(state, box) });
    fill(box, note.element);
    return;
  }
  if (found.ensembles.length === 0) {
    fill(box, h("div", { className: "note warn" }, h("p", {}, "This key is not allowed to call any ensemble.")));
    return;
  }
  state.strategies = Object.keys(found.strategies);
  state.notices = Object.fromEntries(found.ensembles.map(({ id, notice }) => [id, notice]));
  const composer = createComposer(api, found, {
    // One that was waiting for a file when another key was given sends nothing with that.
    send: (asked) => composer === state.composer && send(state, shelf.current(), { ...asked, choice: composer.controls.value() }),
    stop: () => shelf.current().running?.stop(),
    chosen: () => state.welcome.hidden || showWelcome(state.welcome, api, composer),
    current: shelf.current,
    count: (text) => countTokens(api, composer.controls.value().model, text),
  });
  state.runsKept = areRunsKept(api);
  state.composer = composer;
  fill(box, shelf.undo.element, composer.element);
  showConversation(state, shelf.current());
  shelf.refresh();
  shelf.open(state.wanted);
  state.wanted = null;
}

async function areRunsKept(api) {
  try {
    return (await api.get("/api/machine")).runs_kept;
  } catch {
    return false;
  }
}

async function countTokens(api, model, text) {
  const reply = await api.post("/v1/messages/count_tokens", { model, messages: [{ role: "user", content: text }] });
  return reply.input_tokens;
}

/** Put a conversation on the page, and how it was asked last into the controls. */
function showConversation({ api, welcome, place, composer }, conversation, words = "") {
  const { log, turns, running } = conversation;
  fill(place, words && h("div", { className: "note" }, h("p", {}, words)), log);
  welcome.hidden = turns.length > 0;
  if (!composer) return;
  if (!turns.length) showWelcome(welcome, api, composer);
  const last = turns.at(-1)?.choice;
  if (last) composer.controls.set(last);
  composer.setRunning(running !== null);
  composer.focus();
}

function addTurn(conversation, turn) {
  conversation.turns.push(turn);
  conversation.log.append(turn.view.element);
}

function restoreTurn(state, conversation, kept) {
  const turn = restoredTurn(kept);
  addTurn(conversation, turn);
  addTurnMenu(turn, state.strategies, waysOn(state, conversation));
}

function waysOn(state, conversation) {
  return {
    askAgain: (turn, changes) => askAgain(state, conversation, turn, changes),
    branch: (turn) => state.shelf.branch(turn).then(() => state.composer.focus()),
  };
}

function send(state, conversation, { question, attachments, choice, leftOut }) {
  const { api, shelf, welcome, composer } = state;
  if (conversation.running) return;
  const earlier = [...conversation.turns];
  const asked = { question, attachments, choice, leftOut: leftOut ?? earlier.at(-1)?.leftOut ?? 0 };
  const body = requestBody(choice, earlier.slice(asked.leftOut), question, attachments);
  const view = turnView(asked);
  const turn = { ...asked, answer: "", run: null, view };
  earlier.at(-1)?.view.fold();
  // A new question ends the automatic retry of the one before.
  earlier.at(-1)?.dispose?.();
  addTurn(conversation, turn);
  if (conversation === shelf.current()) {
    welcome.hidden = true;
    composer.setRunning(true);
    view.element.scrollIntoView({ block: "start" });
  }
  conversation.running = startRun(api, body, view.update);
  shelf.began(conversation);
  shelf.changed(conversation);
  conversation.running.done.then((run) => finishTurn(state, conversation, turn, run));
}

function finishTurn(state, conversation, turn, run) {
  const { api, shelf, composer, strategies } = state;
  conversation.running = null;
  conversation.busyWords?.remove();
  if (conversation === shelf.current()) composer.setRunning(false);
  Object.assign(turn, { run, answer: run.phase === "done" ? run.answer.text : "" });
  turn.view.end(run);
  shelf.ended(conversation);
  if (run.phase === "done") showExplanation(turn.view, run, state.notices[turn.choice.model]);
  if (run.phase === "failed") showFailure(state, conversation, turn, run.error);
  addTurnMenu(turn, strategies, waysOn(state, conversation));
  // A first answer can come before the server has said whether it keeps runs.
  if (run.runId) state.runsKept.then((kept) => kept && addRunLink(turn, run.runId));
}

function addRunLink(turn, runId) {
  turn.view.actions.append(h("a", { href: `#run/${runId}` }, "Link to this run"));
}

function showFailure(state, conversation, turn, error) {
  const again = () => askAgain(state, conversation, turn, turn);
  const note = errorNote(state.api, error, { model: turn.choice.model, again });
  turn.dispose = note.dispose;
  if (conversation !== state.shelf.current()) note.dispose();
  turn.view.notice.append(note.element);
  if (!TOO_LONG.includes(error.code)) return;
  const earlier = conversation.turns.slice(0, conversation.turns.indexOf(turn));
  const sizeOf = error.code === "body_too_large" ? sizeInBody : sizeOfText;
  const remedy = tooLongRemedy(earlier, turn.leftOut, sizeOf, {
    leaveOut: (leftOut) => askAgain(state, conversation, turn, { ...turn, leftOut }),
    summarise: () => beginAnew(state, earlier, turn),
  });
  note.element.append(remedy);
}

/** Ask the question in a new conversation that knows the old one by a summary, which the same models write. */
async function beginAnew(state, earlier, { question, attachments, choice }) {
  const { api, shelf, composer } = state;
  const { context } = composer.controls.ensemble();
  const old = shelf.current();
  const run = await startRun(api, requestBody({ model: choice.model }, [], summaryQuestion(earlier, context)), () => {}).done;
  if (run.phase !== "done" || shelf.current() !== old) return false;
  shelf.startNew();
  const system = withSummary(choice.system, run.answer.text);
  send(state, shelf.current(), { question, attachments, choice: { ...choice, system } });
  composer.controls.set({ ...choice, system });
  return true;
}

/**
 * Ask instead of a turn and of those after it, which refer to the answer that is replaced; this can be undone. Returns false, and says
 * so in the turn, while the conversation runs.
 */
function askAgain(state, conversation, turn, { question, choice, leftOut }) {
  const { shelf } = state;
  if (conversation.running) return sayBusy(conversation, turn);
  const removed = conversation.turns.splice(conversation.turns.indexOf(turn));
  for (const each of removed) {
    each.dispose?.();
    each.view.element.remove();
  }
  send(state, conversation, { question, attachments: turn.attachments, choice, leftOut: leftOut ?? turn.leftOut });
  if (!removed.some((each) => each.answer)) return true;
  const replacing = conversation.turns.at(-1);
  const words = removed.length > 1 ? `${removed.length} turns were replaced.` : "The answer was replaced.";
  shelf.undo.show(words, () => putBack(state, conversation, replacing, removed));
  return true;
}

/** Say in a turn that it has to wait, until the run is over; beside the words of the question, where they are being changed. */
function sayBusy(conversation, { view }) {
  conversation.busyWords?.remove();
  conversation.busyWords = h("p", { className: "small problem", role: "alert" }, BUSY);
  (view.element.querySelector(".editor") ?? view.actions).append(conversation.busyWords);
  return false;
}

function putBack({ shelf }, conversation, replacing, removed) {
  if (conversation.turns.includes(replacing)) conversation.running?.stop();
  const from = conversation.turns.indexOf(replacing);
  for (const each of from < 0 ? [] : conversation.turns.splice(from)) each.view.element.remove();
  for (const each of removed) conversation.log.append(each.view.element);
  conversation.turns.push(...removed);
  shelf.changed(conversation);
}
