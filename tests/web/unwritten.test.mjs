// What is put down when the page is left, and taken up when the browser shows it again.
import assert from "node:assert/strict";
import { test } from "node:test";

class Storage {
  getItem(place) {
    return Object.hasOwn(this, place) ? this[place] : null;
  }

  setItem(place, text) {
    this[place] = text;
  }

  removeItem(place) {
    delete this[place];
  }
}

const page = new EventTarget();
const storage = new Storage();
Object.defineProperty(globalThis, "localStorage", { value: storage });
globalThis.addEventListener = page.addEventListener.bind(page);
const { followWrite, guardWrites } = await import("../../runtime/cappella/gateway/web/assets/unwritten.js");

test("a page that is shown again leaves no note, also of a write that ended after it was put down", async () => {
  guardWrites();
  let end;
  const ended = followWrite("one", () => ({ head: { id: "1" } }), new Promise((resolve) => (end = resolve)));
  followWrite("two", () => ({ head: { id: "2" } }), new Promise(() => {}));
  page.dispatchEvent(new Event("pagehide"));
  assert.deepEqual(Object.keys(storage), ["cappella-unwritten-one", "cappella-unwritten-two"]);
  end();
  await ended;
  page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  assert.deepEqual(Object.keys(storage), []);
});
