import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyText, readAnalysis } from "../../runtime/cappella/gateway/web/assets/analysis_view.js";

const begun = { text: "", value: null, isWhole: false };

test("an analysis that ended early is told apart from one that is still written", () => {
  assert.equal(emptyText({ phase: "analysis", analysis: begun }), "The judge compares the answers…");
  assert.equal(emptyText({ phase: "done", analysis: begun }), "The judge's comparison is incomplete.");
  assert.equal(emptyText({ phase: "done", analysis: { ...begun, isWhole: true } }), "The judge found nothing to compare.");
});

test("an analysis of other values than texts is read as texts", () => {
  const value = {
    consensus: [null, 7, "yes"],
    contradictions: [{ topic: null, stances: [{ model: "A", stance: null }, null] }, { topic: "t", stances: null }, "alone"],
    partial_coverage: [{ models: null, point: null }, { models: ["A", null, 3], point: 2 }],
    unique_insights: [{ model: null, insight: null }],
    blind_spots: null,
  };
  assert.deepEqual(readAnalysis({ text: "", value }, { A: "ann" }), {
    consensus: ["7", "yes"],
    contradictions: [
      { topic: "", stances: [{ model: "ann", stance: "" }] },
      { topic: "t", stances: [] },
      { topic: "", stances: [] },
    ],
    partial: [
      { models: [], point: "" },
      { models: ["ann", "3"], point: "2" },
    ],
    unique: [{ model: "", insight: "" }],
    gaps: [],
  });
});
