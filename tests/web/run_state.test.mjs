// A run's state as its stream tells it.
import assert from "node:assert/strict";
import test from "node:test";

import {
  newRun,
  withInterruption,
  withChunk,
  isFinished,
  tokensOf,
  tokensPerSecond,
  pendingMembers,
} from "../../runtime/cappella/gateway/web/assets/run_state.js";

const event = (type, fields = {}) => ({ choices: [{ delta: {} }], fusion_event: { type, ...fields } });
const final = (content) => ({ choices: [{ delta: { content } }] });
const STARTED = event("run.started", { run_id: "run-1", panel: ["ann", "bob"], judge: "cid" });
const FUSION = {
  status: "ok",
  labels: { A: "bob", B: "ann" },
  responses: [
    { model: "ann", content: "One." },
    { model: "bob", content: "Two." },
  ],
};

/** The state after chunks that come a second apart. */
function after(...chunks) {
  return chunks.reduce((run, chunk, at) => withChunk(run, chunk, (at + 1) * 1000), newRun(0));
}

test("a panel is waited for until its last member is done", () => {
  const half = after(
    STARTED,
    event("answer.delta", { model: "ann", delta: "One" }),
    event("answer.done", { model: "ann", tokens: 5, ms: 900 }),
  );
  assert.deepEqual(pendingMembers(half), ["bob"]);
  assert.equal(half.panelEndedMs, null);
  const whole = withChunk(
    half,
    event("answer.failed", { model: "bob", reason: "engine_broke", error: "gone", partial: "Tw" }),
    4000,
  );
  assert.deepEqual(pendingMembers(whole), []);
  assert.equal(whole.panelEndedMs, 4000);
  assert.deepEqual(
    [whole.members.bob.state, whole.members.bob.text, whole.members.bob.reason],
    ["failed", "Tw", "engine_broke"],
  );
});

test("what a member says before it calls a tool is no part of its answer", () => {
  const run = after(
    STARTED,
    event("answer.delta", { model: "ann", delta: "Let me see." }),
    event("tool.called", { model: "ann", server: null, tool: "made_up", arguments: "{}" }),
    event("tool.called", { model: "cid", server: "box", tool: "add", arguments: "{}" }),
    event("answer.delta", { model: "ann", delta: "Two." }),
  );
  assert.equal(run.members.ann.text, "Two.");
});

test("a straggler is cancelled, not failed", () => {
  const run = after(STARTED, event("answer.failed", { model: "bob", reason: "straggler", error: "late" }));
  assert.equal(run.members.bob.state, "cancelled");
});

test("a member that waits for its engine says so until it reads", () => {
  const wakes = after(STARTED, event("engine.waiting", { model: "bob", reason: "asleep" }));
  assert.equal(wakes.members.bob.state, "waking");
  const swapped = after(STARTED, event("engine.waiting", { model: "bob", reason: "swap" }));
  assert.equal(swapped.members.bob.state, "queued");
  const judge = withChunk(wakes, event("engine.waiting", { model: "cid", reason: "asleep" }), 3000);
  assert.deepEqual([judge.waits, judge.members.bob.state], [{ cid: "asleep" }, "waking"]);
  assert.equal(withChunk(judge, event("engine.awake", { model: "bob", ms: 9 }), 4000).members.bob.state, "reading");
});

test("the end of the grace is known, and forgotten with the next round", () => {
  const run = after(STARTED, event("grace.started", { models: ["bob"], grace_ms: 5000, quorum_ms: 1000 }));
  assert.deepEqual(run.grace, { names: ["bob"], endsMs: 7000 });
  assert.equal(withChunk(run, event("round.started", { round: 2 }), 8000).grace, null);
});

test("a member thinks before it writes, and both are kept apart", () => {
  const thinking = after(STARTED, event("answer.delta", { model: "ann", delta: "", reasoning: "Hm." }));
  assert.deepEqual(
    [thinking.members.ann.state, thinking.members.ann.text, thinking.members.ann.reasoning],
    ["thinking", "", "Hm."],
  );
  const writing = withChunk(thinking, event("answer.delta", { model: "ann", delta: "One" }), 3000);
  assert.deepEqual([writing.members.ann.state, writing.members.ann.text], ["writing", "One"]);
});

test("tokens a second are counted from a member's first token, by its own count once it is done", () => {
  const run = after(STARTED, ...["a", "b", "c"].map((delta) => event("answer.delta", { model: "ann", delta })));
  assert.equal(tokensPerSecond(run.members.ann, 4000), 1.5);
  assert.equal(tokensPerSecond(run.members.bob, 4000), null);
  const done = withChunk(run, event("answer.done", { model: "ann", tokens: 8, ms: 3000 }), 4000);
  assert.equal(tokensPerSecond(done.members.ann, 9000), 4);
});

test("a later round begins with empty members", () => {
  const run = after(
    STARTED,
    event("answer.done", { model: "ann", tokens: 5, ms: 10 }),
    event("round.started", { round: 2 }),
  );
  assert.equal(run.round, 2);
  assert.deepEqual(pendingMembers(run), ["ann", "bob"]);
  assert.equal(run.members.ann.tokens, null);
});

test("the judge's analysis grows and is then whole, under the letters of its beginning", () => {
  const growing = after(
    STARTED,
    event("analysis.started", { labels: { A: "ann" } }),
    event("analysis.delta", { delta: '{"consen' }),
    event("analysis.delta", { delta: 'sus": [' }),
  );
  assert.deepEqual(growing.analysis, { text: '{"consensus": [', value: null, isWhole: false });
  assert.deepEqual(growing.labels, { A: "ann" });
  const whole = withChunk(growing, event("analysis.done", { analysis: { consensus: ["x"] } }), 9000);
  assert.deepEqual([whole.analysis.value, whole.analysis.isWhole], [{ consensus: ["x"] }, true]);
});

test("an analysis that comes without deltas, or only with the end, is there as well", () => {
  const bare = after(STARTED, event("analysis.started"), event("analysis.done", { analysis: { consensus: ["x"] } }));
  assert.deepEqual(bare.analysis.value, { consensus: ["x"] });
  const late = after(STARTED, { choices: [], fusion: { ...FUSION, analysis: { consensus: ["y"] } }, usage: {} });
  assert.deepEqual(late.analysis.value, { consensus: ["y"] });
});

test("the end brings the whole answers, the letters and the true times", () => {
  const usage = { fusion_details: [{ role: "panel", model: "ann", start_ms: 0, first_token_ms: 200, ms: 700 }] };
  const run = after(
    STARTED,
    event("answer.done", { model: "ann", tokens: 5, ms: 700 }),
    final("Both"),
    final(" say."),
    { choices: [{ delta: {}, finish_reason: "stop" }] },
    { choices: [], fusion: FUSION, usage },
  );
  assert.deepEqual([run.phase, run.answer.text, run.finishReason, isFinished(run)], ["done", "Both say.", "stop", true]);
  assert.equal(run.members.ann.text, "One.");
  assert.deepEqual(run.labels, FUSION.labels);
  assert.equal(run.members.ann.firstMs - run.members.ann.startedMs, 200);
  assert.equal(run.members.ann.endedMs - run.members.ann.startedMs, 700);
});

test("samples of one seat share the times of its call", () => {
  const started = event("run.started", { run_id: "r", panel: ["ann~1", "ann~2"], judge: "cid" });
  const done = ["ann~1", "ann~2"].map((model) => event("answer.done", { model, tokens: 5, ms: 700 }));
  const usage = { fusion_details: [{ role: "panel", model: "ann", start_ms: 0, first_token_ms: 200, ms: 700 }] };
  const run = after(started, ...done, { choices: [], fusion: { ...FUSION, responses: [] }, usage });
  assert.equal(run.members["ann~2"].firstMs - run.members["ann~2"].startedMs, 200);
});

test("a stopped run keeps the text so far and waits for no member", () => {
  const run = withInterruption(after(STARTED, event("answer.delta", { model: "ann", delta: "On" })), null, 5000);
  assert.deepEqual(
    [run.phase, run.members.ann.text, run.members.ann.state, pendingMembers(run)],
    ["stopped", "On", "stopped", []],
  );
});

test("a panel below its quorum shows its answers from the error alone", () => {
  const details = {
    responses: [{ model: "ann", content: "One." }],
    failed_models: [{ model: "bob", reason: "deadline", error: "late", partial: "T" }],
  };
  for (const run of [after(STARTED), after()]) {
    const { phase, panel, members } = withInterruption(run, { message: "too few", details }, 5000);
    assert.deepEqual([phase, panel], ["failed", ["ann", "bob"]]);
    assert.deepEqual([members.ann.state, members.ann.text], ["done", "One."]);
    assert.deepEqual([members.bob.state, members.bob.text], ["cancelled", "T"]);
  }
});

test("tokens that come several at a time are not counted as one", () => {
  const run = after(STARTED, event("answer.delta", { model: "ann", delta: "Twenty characters it" }));
  assert.equal(tokensOf(run.members.ann), 5);
});

test("an unknown event changes nothing", () => {
  const run = after(STARTED);
  assert.deepEqual(withChunk(run, event("something.new", { model: "ann" }), 9000), run);
  assert.deepEqual(withChunk(run, event("answer.delta", { model: "nobody", delta: "x" }), 9000), run);
});
