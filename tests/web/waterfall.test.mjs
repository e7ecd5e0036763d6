// Where a run's time went, as bars.
import assert from "node:assert/strict";
import test from "node:test";

import { overhead, ticks, waterfall } from "../../runtime/cappella/gateway/web/assets/waterfall.js";

const call = (role, model, start_ms, first_token_ms, ms) => ({
  role,
  model,
  start_ms,
  first_token_ms,
  ms,
  prompt_tokens: 10,
  cached_tokens: 4,
  completion_tokens: 5,
});
const TIMINGS = { total_ms: 1000, floor_ms: 800, panel_ms: 600, early_prefill_tokens: 50, late_prefill_tokens: 9 };
const fall = (...calls) => waterfall({ fusion_details: calls }, TIMINGS);

test("a call is read until its first token, and written from then on", () => {
  const [row] = fall(call("panel", "ann", 10, 90, 590)).rows;
  assert.deepEqual(row.segments, [
    { kind: "prefill", fromMs: 10, toMs: 100 },
    { kind: "decode", fromMs: 100, toMs: 600 },
  ]);
  assert.deepEqual([row.name, row.does, row.side, row.readMs, row.wroteMs], ["ann", "answers", "panel", 90, 500]);
});

test("what the judge reads while the panel speaks is hidden, the rest is not", () => {
  const [row] = fall(call("prefill", "cid", 500, 150, 200)).rows;
  assert.deepEqual(row.segments, [
    { kind: "hidden", fromMs: 500, toMs: 600 },
    { kind: "prefill", fromMs: 600, toMs: 700 },
  ]);
  const [whole] = fall(call("prefill", "cid", 100, 150, 200)).rows;
  assert.deepEqual(whole.segments, [{ kind: "hidden", fromMs: 100, toMs: 300 }]);
});

test("a call that gave no token only read", () => {
  const [row] = fall(call("panel", "ann", 0, null, 300)).rows;
  assert.deepEqual([row.segments, row.wroteMs], [[{ kind: "prefill", fromMs: 0, toMs: 300 }], 0]);
});

test("the second call of a seat is its second round, but the judge's two choices are not", () => {
  const does = fall(
    call("panel", "ann", 0, 1, 2),
    call("panel", "bob", 0, 1, 2),
    call("panel", "ann", 5, 1, 2),
    call("choice", "cid", 9, 1, 2),
    call("choice", "cid", 9, 1, 2),
  ).rows.map((row) => row.does);
  assert.deepEqual(does, ["answers", "answers", "answers, round 2", "chooses", "chooses"]);
});

test("a tool has a row of its own after the call that asked for it", () => {
  const calls = [call("lookup", "ann", 0, 10, 50), call("panel", "ann", 90, 10, 50), call("panel", "bob", 0, 10, 50)];
  const use = { seat: "ann", server: "box", tool: "add", start_ms: 50, ms: 40, is_error: false, shared: true };
  const { rows } = waterfall({ fusion_details: calls }, TIMINGS, [use]);
  assert.deepEqual(
    rows.map((row) => [row.name, row.does]),
    [
      ["ann", "looks up"],
      ["ann", "box: add, shared"],
      ["ann", "answers"],
      ["bob", "answers"],
    ],
  );
  assert.deepEqual(rows[1].segments, [{ kind: "tool", fromMs: 50, toMs: 90 }]);
});

test("the axis holds the longest call and has few, round marks", () => {
  assert.equal(fall(call("final", "cid", 600, 10, 900)).endMs, 1500);
  assert.deepEqual(ticks(1000), [0, 200, 400, 600, 800, 1000]);
  for (const endMs of [3, 47, 999, 1234, 86_400_000])
    assert.ok(ticks(endMs).length <= 6 && ticks(endMs).length >= 2, String(endMs));
  assert.deepEqual(ticks(0).slice(0, 1), [0]);
});

test("a run is measured against its floor", () => {
  assert.deepEqual(overhead(TIMINGS), { ratio: 1.25, overheadMs: 200 });
});

test("a run without figures has no bars", () => {
  assert.deepEqual(waterfall(null, TIMINGS).rows, []);
});
