// Which conversation is shown, and what is kept of the others: opens, starts, renames, deletes and branches them.

import { replaceAddress } from "./address.js";
import { ApiError } from "./api.js";
import { conversationBar } from "./conversation_bar.js";
import { conversationList } from "./conversation_list.js";
import { keep, keepLeft, keepResult, keptTurn, newConversation } from "./conversation.js";
import * as kept from "./kept_conversations.js";
import { undoNote } from "./undo_note.js";
import { dropLeft, guardWrites } from "./unwritten.js";

const NOT_FOUND = "This conversation is not kept in this browser, or was kept with another key.";
const NOT_READ = "This browser cannot read the conversation now";

/** The shelf; `show(conversation, words)` puts one on the page, `restore(conversation, turns)` makes turns of what was kept. */
export function conversationShelf(api, { show, restore }) {
  const undo = undoNote();
  const running = new Set();
  let owner = kept.ownerOf(api.key);
  let shown = newConversation(owner);
  let opened = 0;
  guardWrites();
  const leftIsKept = keepLeft();

  const refresh = async () => {
    bar.show(shown);
    await leftIsKept;
    return list.show(owner, shown.head.id);
  };
  const take = (conversation, words = "") => {
    opened += 1;
    // Out of sight nothing is asked again.
    if (conversation !== shown) for (const turn of shown.turns) turn.dispose?.();
    shown = conversation;
    showAddress(shown);
    show(shown, words);
    return refresh();
  };
  /** Put another one in the place of the shown one, which is gone with this where nothing is kept: that can be undone. */
  const moveTo = (conversation, words) => {
    const left = shown;
    undo.hide();
    const drawn = take(conversation, words);
    if (kept.isKeeping() || !left.turns.length) return drawn;
    left.running?.stop();
    undo.show("The conversation was cleared.", () => take(left));
    return drawn;
  };
  const runningOne = (id) => [...running].find(({ head }) => head.id === id && head.owner === owner);
  const open = async (id) => {
    if (!id) return showAddress(shown);
    const mine = (opened += 1);
    // Another one may have been asked for meanwhile, or another key given.
    const isWanted = () => mine === opened;
    if (id === shown.head.id) return showAddress(shown);
    if (runningOne(id)) return moveTo(runningOne(id));
    await leftIsKept;
    let words = NOT_FOUND;
    const found = await kept.readConversation(owner, id).catch((error) => void (words = `${NOT_READ} (${error.name}).`));
    if (!isWanted()) return undefined;
    if (!found) return moveTo(newConversation(owner), words);
    const conversation = { ...newConversation(owner), head: found.head };
    await restore(conversation, found.turns);
    return isWanted() ? moveTo(conversation) : undefined;
  };
  const notWritten = (error) => {
    list.wrote(error);
    // The column says it, where there is room for that.
    if (!list.element.checkVisibility()) undo.tell(`This browser keeps no conversations now (${error.name}).`);
  };
  const keepBy = async (way, conversation) => {
    const here = ["", "#ask", `#ask/${conversation.head.id}`];
    // Any other address is where the user is on the way to.
    const showOwn = () => conversation === shown && here.includes(location.hash) && showAddress(shown);
    const writing = way(conversation);
    showOwn();
    await writing.then((isWritten) => isWritten === false || list.wrote(), notWritten);
    // Written as another conversation, where another tab changed this one.
    showOwn();
    return refresh();
  };
  const changed = (conversation) => {
    undo.hide();
    return keepBy(keep, conversation);
  };
  const startNew = () => moveTo(newConversation(owner));
  /** Wait for what is still to be written of conversations that are to be deleted: it would bring them back, as would a later result. */
  const endWrites = async (isToGo) => {
    const those = [...running, shown].filter(({ head }) => isToGo(head));
    await Promise.all([leftIsKept, ...those.map(({ keeping }) => keeping)]);
    for (const each of those) each.mayBegin = false;
    dropLeft(isToGo);
  };
  const remove = async (head) => {
    try {
      await endWrites(({ id }) => id === head.id);
      const found = await kept.readConversation(owner, head.id);
      await kept.deleteConversation(head.id);
      return await showRemoved(head, found);
    } catch (error) {
      return undo.tell(`“${head.title}” could not be deleted (${error.name}).`);
    }
  };
  const showRemoved = async (head, found) => {
    const [wasShown, left] = [head.id === shown.head.id, shown];
    runningOne(head.id)?.running?.stop();
    await (wasShown ? take(newConversation(owner)) : refresh());
    if (!found) return;
    const putBack = async () => {
      await kept.writeConversation(found.head, found.turns);
      return wasShown ? take(left) : refresh();
    };
    const offerUndo = (words) => undo.show(words, () => putBack().catch(offerAgain));
    const offerAgain = (error) => offerUndo(`“${head.title}” could not be put back (${error.name}).`);
    offerUndo(`“${head.title}” was deleted.`);
    undo.focus();
  };
  const removeAll = async () => {
    try {
      await endWrites((head) => head.owner === owner);
      await kept.deleteAll(owner);
    } catch (error) {
      return undo.tell(`The conversations could not be deleted (${error.name}).`);
    }
    for (const each of running) if (each.head.owner === owner) each.running?.stop();
    undo.hide();
    return take(newConversation(owner));
  };
  const keepingChanged = () => {
    if (!kept.isKeeping()) dropLeft();
    showAddress(shown);
    if (shown.turns.length) changed(shown);
  };
  const list = conversationList({ startNew, remove, removeAll, keepingChanged });
  const bar = conversationBar({
    renamed(conversation, title) {
      Object.assign(conversation.head, { title, isRenamed: true });
      changed(conversation);
    },
  });

  kept.onChange(refresh);

  return {
    list: list.element,
    bar: bar.element,
    undo,
    open,
    startNew,
    changed,
    refresh,
    current: () => shown,
    /** A run began: its conversation goes on while another one is shown. */
    began: (conversation) => running.add(conversation),
    /** A run is over: until its result is kept, its conversation is not read from what is kept. */
    async ended(conversation) {
      await keepBy(keepResult, conversation);
      if (!conversation.running) running.delete(conversation);
    },
    /** Go on from a turn in a conversation of its own; the old one stays as it is. */
    async branch(turn) {
      const conversation = newConversation(owner);
      const turns = shown.turns.slice(0, shown.turns.indexOf(turn) + 1).map(keptTurn);
      Object.assign(conversation.head, { title: `${shown.head.title} (branch)`, isRenamed: true });
      await restore(conversation, turns);
      moveTo(conversation);
      return keepBy(keep, conversation);
    },
    /**
     * Another key does not see the conversations of the first; but who had to give a new one to go on goes on. Returns whether the
     * shown one was put away.
     */
    keyChanged() {
      if (kept.ownerOf(api.key) === owner) return false;
      owner = kept.ownerOf(api.key);
      opened += 1;
      undo.hide();
      if (!wasRefused(shown)) {
        take(newConversation(owner));
        return true;
      }
      Object.assign(shown.head, { id: kept.newId(), owner });
      refresh();
      return false;
    },
  };
}

/** Whether a conversation stopped at a key that was not accepted, on this visit: an error that was kept is plain data. */
function wasRefused({ turns }) {
  const error = turns.at(-1)?.run?.error;
  return error instanceof ApiError && error.status === 401;
}

/** The address of a kept conversation leads to it after a reload, too. */
function showAddress({ head, turns }) {
  if (!/^(#ask(\/.*)?)?$/.test(location.hash)) return;
  replaceAddress(turns.length && kept.isKeeping() ? `#ask/${head.id}` : "#ask");
}
