// Writes that are not over when the page is left: put down at once in localStorage, and written when the page is opened again.

import { isKeeping } from "./kept_conversations.js";

const PREFIX = "cappella-unwritten-";

const outstanding = new Map();
const putDownHere = new Set();

/** From now on, put down what is not written when the page is left, where this browser may keep it. */
export function guardWrites() {
  addEventListener("pagehide", putDown);
  // A page that the browser had put aside goes on, and its writes with it.
  addEventListener("pageshow", (event) => event.persisted && takeUp());
}

/** Follow a write until it is over; `wish()` is what is to be written then, as plain data. Resolves as the write does. */
export async function followWrite(id, wish, writing) {
  const mine = { wish };
  outstanding.set(id, mine);
  try {
    return await writing;
  } finally {
    // A later write of the same conversation has taken its place.
    if (outstanding.get(id) === mine) outstanding.delete(id);
  }
}

/** Write by `write(wish)` what was left unwritten; what cannot be written now stays for the next visit. */
export async function writeLeft(write) {
  for (const place of places()) {
    try {
      const wish = JSON.parse(localStorage.getItem(place));
      // Dropped meanwhile.
      if (wish) await write(wish);
      localStorage.removeItem(place);
    } catch (error) {
      if (error instanceof SyntaxError) localStorage.removeItem(place);
    }
  }
}

/** Drop what was left unwritten of the conversations whose head is `isToGo(head)`. */
export function dropLeft(isToGo = () => true) {
  for (const place of places()) if (isToGo(headAt(place))) localStorage.removeItem(place);
}

function putDown() {
  if (!isKeeping()) return;
  for (const [id, { wish }] of outstanding) {
    try {
      putDownHere.add(PREFIX + id);
      localStorage.setItem(PREFIX + id, JSON.stringify(wish()));
    } catch {
      // Too large, as images may be.
    }
  }
}

function takeUp() {
  // Not only of writes that still go on: one may have ended since it was put down.
  for (const place of putDownHere) localStorage.removeItem(place);
  putDownHere.clear();
}

/** The head of what lies at a place; empty where that cannot be read. */
function headAt(place) {
  try {
    return JSON.parse(localStorage.getItem(place)).head;
  } catch {
    return {};
  }
}

function places() {
  return Object.keys(localStorage).filter((place) => place.startsWith(PREFIX));
}
