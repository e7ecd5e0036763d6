import assert from "node:assert/strict";
import { test } from "node:test";

import { wordsForNone } from "../../runtime/cappella/web/assets/comparison.js";

const begun = { text: "", value: null, isWhole: false };

test("a comparison that broke off is not one that is still written", () => {
  assert.equal(wordsForNone({ phase: "analysis", analysis: begun }), "The judge compares the answers…");
  assert.equal(wordsForNone({ phase: "done", analysis: begun }), "The judge's comparison broke off.");
  assert.equal(wordsForNone({ phase: "done", analysis: { ...begun, isWhole: true } }), "The judge found nothing to compare.");
});
