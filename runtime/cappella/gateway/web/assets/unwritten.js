// Writes that are not over when the page is left: put down at once in localStorage, and written when the page is opened again.

const PREFIX = "cappella-unwritten-";

const outstanding = new Map();

/** From now on, put down what is not written when the page is left. */
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
      await write(JSON.parse(localStorage.getItem(place)));
      localStorage.removeItem(place);
    } catch (error) {
      if (error instanceof SyntaxError) localStorage.removeItem(place);
    }
  }
}

/** Drop what was left unwritten. */
export function dropLeft() {
  for (const place of places()) localStorage.removeItem(place);
}

function putDown() {
  for (const [id, { wish }] of outstanding) {
    try {
      localStorage.setItem(PREFIX + id, JSON.stringify(wish()));
    } catch {
      // Too large, as images may be.
    }
  }
}

function takeUp() {
  for (const id of outstanding.keys()) localStorage.removeItem(PREFIX + id);
}

function places() {
  return Object.keys(localStorage).filter((place) => place.startsWith(PREFIX));
}
