// The conversations that this browser keeps, in IndexedDB. Those of one key are not seen with another.

import { sha256 } from "./sha256.js";

const DATABASE = "cappella";
const VERSION = 1;
const SWITCH = "cappella-keep";
const CHANNEL = "cappella-conversations";

let opened = null;

/** Whose conversations they are: a digest of the key, so that the key itself is not kept. */
export function ownerOf(key) {
  return sha256(`Cappella's conversations\n${key}`);
}

/** Whether the user lets this browser keep conversations. */
export function isKeeping() {
  return localStorage.getItem(SWITCH) !== "off";
}

export function setKeeping(isOn) {
  localStorage.setItem(SWITCH, isOn ? "on" : "off");
}

/** An id for a conversation. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The heads `{id, owner, title, createdMs, changedMs}` of an owner's conversations, the newest first. */
export async function listHeads(owner) {
  const heads = await inStores("readonly", ({ heads }) => heads.index("owner").getAll(owner));
  return heads.sort((one, other) => other.changedMs - one.changedMs);
}

/** `{head, turns}` of a conversation; null if this owner has none by that id. */
export async function readConversation(owner, id) {
  const [head, body] = await inStores("readonly", ({ heads, bodies }) => {
    const [ofHead, ofBody] = [heads.get(id), bodies.get(id)];
    return {
      get result() {
        return [ofHead.result, ofBody.result];
      },
    };
  });
  return head?.owner === owner ? { head, turns: body?.turns ?? [] } : null;
}

export function writeConversation(head, turns) {
  return updateConversation(head.id, () => ({ head, turns }));
}

/**
 * Write the `{head, turns}` that `decide(there)` makes of the head that is kept by this id, undefined if none is; nothing where it
 * makes null. No other tab writes in between. Resolves to the head that was written, or to null.
 */
export async function updateConversation(id, decide) {
  const written = await inStores("readwrite", ({ heads, bodies }) => {
    const there = heads.get(id);
    const outcome = { result: null };
    there.addEventListener("success", () => {
      const wanted = decide(there.result);
      if (!wanted) return;
      const { head, turns } = wanted;
      bodies.put({ id: head.id, owner: head.owner, turns });
      heads.put(head);
      outcome.result = head;
    });
    return outcome;
  });
  if (written) tellTabs();
  return written;
}

export async function deleteConversation(id) {
  await inStores("readwrite", ({ heads, bodies }) => {
    bodies.delete(id);
    return heads.delete(id);
  });
  tellTabs();
}

export async function deleteAll(owner) {
  const ids = await inStores("readonly", ({ heads }) => heads.index("owner").getAllKeys(owner));
  await inStores("readwrite", ({ heads, bodies }) => {
    for (const id of ids) bodies.delete(id);
    for (const id of ids) heads.delete(id);
    return heads.count();
  });
  tellTabs();
}

/** The ids of an owner's conversations whose title, questions or answers contain a text. */
export async function findConversations(owner, text) {
  const wanted = text.toLowerCase();
  const says = (words) => (words ?? "").toLowerCase().includes(wanted);
  const found = new Set((await listHeads(owner)).filter((head) => says(head.title)).map((head) => head.id));
  await inStores("readonly", ({ bodies }) => {
    const cursor = bodies.index("owner").openCursor(owner);
    cursor.addEventListener("success", () => {
      if (!cursor.result) return;
      const { id, turns } = cursor.result.value;
      if (turns.some((turn) => says(turn.question) || says(turn.answer))) found.add(id);
      cursor.result.continue();
    });
    return cursor;
  });
  return found;
}

/** Call `changed()` when a tab changed what is kept. */
export function onChange(changed) {
  new BroadcastChannel(CHANNEL).addEventListener("message", () => changed());
}

function tellTabs() {
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage(null);
  channel.close();
}

/** Call `work` with both stores in one transaction; resolves to the `result`, at its end, of what it returns: of a request, say. */
async function inStores(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(["heads", "bodies"], mode);
    const request = work({ heads: transaction.objectStore("heads"), bodies: transaction.objectStore("bodies") });
    transaction.addEventListener("complete", () => resolve(request.result));
    transaction.addEventListener("abort", () => reject(transaction.error ?? new DOMException("", "AbortError")));
  });
}

/** The database; once its connection has ended, or where it did not open, the next call opens it anew. */
function open() {
  const forget = () => {
    opened = null;
  };
  opened ??= connect(forget);
  opened.catch(forget);
  return opened;
}

function connect(ended) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    let isBlocked = false;
    request.addEventListener("upgradeneeded", () => {
      for (const name of ["heads", "bodies"]) {
        request.result.createObjectStore(name, { keyPath: "id" }).createIndex("owner", "owner");
      }
    });
    request.addEventListener("success", () => {
      const database = request.result;
      if (isBlocked) return database.close();
      // Another tab has a newer version of the page, which waits until this one lets go.
      database.addEventListener("versionchange", () => {
        database.close();
        ended();
      });
      database.addEventListener("close", ended);
      return resolve(database);
    });
    request.addEventListener("error", () => reject(request.error));
    request.addEventListener("blocked", () => {
      isBlocked = true;
      reject(new DOMException("Another tab keeps an older version open.", "BlockedError"));
    });
  });
}
