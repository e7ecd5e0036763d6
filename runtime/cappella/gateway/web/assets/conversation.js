// One conversation: its turns, and what is kept of it.

import { h } from "./dom.js";
import { isKeeping, newId, updateConversation } from "./kept_conversations.js";
import { dropLeft, followWrite, writeLeft } from "./unwritten.js";

const MAX_TITLE_CHARACTERS = 80;

/** A conversation without turns; `log` is the element of its turns. */
export function newConversation(owner) {
  const now = Date.now();
  return {
    head: { id: newId(), owner, title: "", isRenamed: false, createdMs: now, changedMs: now },
    turns: [],
    log: h("div", { className: "conversation" }),
    running: null,
    mayBegin: false,
    // Known by this, what is kept was written from here.
    writer: newId(),
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
  return inTurn(conversation, true);
}

/** Keep what a run brought, unless the conversation was deleted while it lasted, or was never kept. */
export function keepResult(conversation) {
  return inTurn(conversation, false);
}

/** Keep what could not be kept before the page was left. */
export function keepLeft() {
  return isKeeping() ? writeLeft(carryOut) : dropLeft();
}

/** One after the other: a run may be over before its question is kept. */
function inTurn(conversation, mayBegin) {
  if (!isKeeping()) return Promise.resolve();
  // Until one of the user's changes is written, a conversation may begin by any write: the first may have failed.
  conversation.mayBegin ||= mayBegin;
  const done = conversation.keeping.then(() => write(conversation, mayBegin || conversation.mayBegin));
  conversation.keeping = done.catch(() => {});
  return followWrite(conversation.writer, () => wishFor(conversation, conversation.mayBegin), done);
}

/** What another tab wrote since stays, and this becomes another conversation. Resolves to whether it was written. */
async function write(conversation, mayBegin) {
  const { head } = conversation;
  const wish = wishFor(conversation, mayBegin);
  const written = await carryOut(wish);
  if (!written) return false;
  // After a write that failed, what is there is still what this one wrote last.
  head.changedMs = written.changedMs;
  if (head.id === wish.head.id) head.id = written.id;
  conversation.mayBegin = false;
  return true;
}

/** What is to be written of a conversation as it is now, as plain data. */
function wishFor({ head, turns, writer }, mayBegin) {
  const [first] = turns;
  if (!head.isRenamed && first) head.title = titleOf(first.question || first.attachments[0].name);
  const changedMs = Math.max(Date.now(), head.changedMs + 1);
  return { mayBegin, seenMs: head.changedMs, head: { ...head, writer, changedMs }, turns: turns.map(keptTurn) };
}

/** Resolves to the head that was written; to null where the conversation is gone, or has been written later than this. */
function carryOut({ mayBegin, seenMs, head, turns }) {
  return updateConversation(head.id, (there) => {
    if (!there) return mayBegin ? { head, turns } : null;
    const isOwn = there.writer === head.writer || there.changedMs === seenMs;
    if (!isOwn) return { head: { ...head, id: newId() }, turns };
    return there.changedMs < head.changedMs ? { head, turns } : null;
  });
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
