// One conversation: its turns, and what is kept of it.

import { h } from "./dom.js";
import { isKeeping, newId, updateConversation } from "./kept_conversations.js";

const MAX_TITLE_CHARACTERS = 80;

/** A conversation without turns; `log` is the element of its turns. */
export function newConversation(owner) {
  const now = Date.now();
  return {
    head: { id: newId(), owner, title: "", isRenamed: false, createdMs: now, changedMs: now },
    turns: [],
    log: h("div", { className: "conversation" }),
    running: null,
    keeping: Promise.resolve(),
  };
}

/** The first words of a question, in one line. */
export function titleOf(question) {
  const line = question.trim().replaceAll(/\s+/g, " ");
  return line.length > MAX_TITLE_CHARACTERS ? `${line.slice(0, MAX_TITLE_CHARACTERS - 1).trimEnd()}…` : line;
}

/** Keep a conversation after a change of the user's. */
export function keep(conversation) {
  return inTurn(conversation, () => write(conversation, true));
}

/** Keep what a run brought, unless the conversation was deleted while it lasted, or was never kept. */
export function keepResult(conversation) {
  return inTurn(conversation, () => write(conversation, false));
}

/** One after the other: a run may be over before its question is kept. */
function inTurn(conversation, work) {
  if (!isKeeping()) return Promise.resolve();
  const done = conversation.keeping.then(work);
  conversation.keeping = done.catch(() => {});
  return done;
}

/** What another tab wrote since stays, and this becomes another conversation. Resolves to whether it was written. */
async function write({ head, turns }, mayBegin) {
  const [first] = turns;
  if (!head.isRenamed && first) head.title = titleOf(first.question || first.attachments[0].name);
  const { id } = head;
  const keptTurns = turns.map(keptTurn);
  const written = await updateConversation(id, (there) => {
    if (!there && !mayBegin) return null;
    const isForeign = there && there.changedMs !== head.changedMs;
    const changes = { id: isForeign ? newId() : id, changedMs: Math.max(Date.now(), head.changedMs + 1) };
    return { head: { ...head, ...changes }, turns: keptTurns };
  });
  if (!written) return false;
  // After a write that failed, what is there is still what this one wrote last.
  head.changedMs = written.changedMs;
  if (head.id === id) head.id = written.id;
  return true;
}

/** What is kept of a turn. */
export function keptTurn({ question, attachments, choice, leftOut, answer, run }) {
  return { question, attachments, choice, leftOut, answer, run: run && plainRun(run) };
}

/** A run as data that a browser can store, and a file can hold: errors are objects, too. */
function plainRun(run) {
  if (!run.error) return run;
  const { message, status, code, param, details } = run.error;
  return { ...run, error: { message, status, code, param, details } };
}
