import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyText } from "../../runtime/cappella/gateway/web/assets/analysis_view.js";

const begun = { text: "", value: null, isWhole: false };

test("an analysis that ended early is told apart from one that is still written", () => {
  assert.equal(emptyText({ phase: "analysis", analysis: begun }), "The judge compares the answers…");
  assert.equal(emptyText({ phase: "done", analysis: begun }), "The judge's comparison is incomplete.");
  assert.equal(emptyText({ phase: "done", analysis: { ...begun, isWhole: true } }), "The judge found nothing to compare.");
});
