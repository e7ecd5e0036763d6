// Which parts of a text cite a source.
import assert from "node:assert/strict";
import { test } from "node:test";

import { foundByText, piecesOf, placeOf } from "../../runtime/cappella/gateway/web/assets/citations.js";

const ONE = { handle: "S1", path: "a.md", place: "page 1", title: "A", documents: "handbook", found_by: ["ann", "bob"] };
const TWO = { handle: "S2", path: "b.md", place: "", documents: "handbook", found_by: ["cat"] };
const KNOWN = new Map([["S1", ONE], ["S2", TWO]]);

test("a text is cut into strings and the sources that it cites", () => {
  assert.deepEqual(piecesOf("28 [S1], 24 [S2; S1].", KNOWN), ["28 ", ONE, ", 24 ", TWO, ONE, "."]);
  assert.deepEqual(piecesOf("[S1, S9]", KNOWN), [ONE, "[S9]"]);
});

test("what cites no known source stays as it is", () => {
  for (const text of ["", "[S9]", "(S1)", "S1", "[S1", "[s1]", "[S1a]"]) assert.deepEqual(piecesOf(text, KNOWN), text ? [text] : []);
});

test("a source is told by title, path and place, and who found it", () => {
  assert.equal(placeOf(ONE), "A, a.md, page 1");
  assert.equal(placeOf(TWO), "b.md");
  assert.equal(foundByText(ONE), "Found by ann and bob in handbook");
});
