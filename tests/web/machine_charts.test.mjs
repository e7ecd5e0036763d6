// The charts of the last hour, the outcomes of actions, and the rows of calls.

import assert from "node:assert/strict";
import test from "node:test";

import { actionOutcomes } from "../../runtime/cappella/gateway/web/assets/machine_actions.js";
import { chartsOf, figuresText, partsOf, spanText } from "../../runtime/cappella/gateway/web/assets/machine_charts.js";
import { callCells, factPairs } from "../../runtime/cappella/gateway/web/assets/machine_text.js";

const told = {
  interval_s: 10,
  times: [100, 110, 120],
  tokens_per_s: { ann: [1, null, 3] },
  kv_usage: { ann: [0.1, 0.2, 0.3] },
  waiting: [0, 0, 1],
  in_flight: [1, 2, 1],
  used_bytes: { "GPU 0": [1, 2, 3] },
  total_bytes: { "GPU 0": 10 },
};

test("there is a chart for each kind of figure, and for each device", () => {
  const titles = chartsOf(told).map((each) => each.title);
  assert.deepEqual(titles, ["Tokens a second", "KV cache in use", "Requests", "GPU 0: memory in use"]);
  assert.deepEqual(chartsOf({ ...told, tokens_per_s: {}, kv_usage: {}, used_bytes: {} }).map((each) => each.title), ["Requests"]);
});

test("a line ends where a figure is missing, and stays inside its frame", () => {
  assert.deepEqual(partsOf([0, 1, 2, 3, 4], [0, 1, null, 2, 9], 2), [
    [[0, 79], [75, 40]],
    [[225, 1], [300, 1]],
  ]);
});

test("figures are told in words", () => {
  assert.equal(figuresText([1, 4, null], String), "no figure now, at most 4");
  assert.equal(figuresText([null], String), "no figures");
  assert.equal(spanText({ times: [0, 600], interval_s: 10 }), "The last 10 minutes, a sample every 10 s.");
  assert.match(spanText({ times: [], interval_s: 10 }), /^The first figures come soon/);
});

test("what came of an action is told once, when it has come", () => {
  let nowMs = 0;
  const words = [];
  const outcomes = actionOutcomes((each) => words.push(each), () => nowMs);
  outcomes.began("ann", "restart", "ready");
  outcomes.look({ ann: { state: "ready" } });
  assert.deepEqual(words, []);
  outcomes.look({ ann: { state: "restarting" } });
  nowMs = 4200;
  outcomes.look({ ann: { state: "ready" } });
  outcomes.look({ ann: { state: "ready" } });
  assert.deepEqual(words, ["ann runs again, after 4.2 s."]);
});

test("an action that fails, and an engine that is gone, are told", () => {
  const words = [];
  const outcomes = actionOutcomes((each) => words.push(each), () => 0);
  outcomes.began("ann", "start", "loading");
  outcomes.began("bob", "sleep", "stopped");
  outcomes.began("cat", "wake", "loading");
  outcomes.look({ ann: { state: "failed", stage: "gave up", reason: "no memory" }, bob: { state: "stopped" } });
  assert.deepEqual(words, [
    "ann: no memory.",
    "bob sleeps, after 0.0 s.",
    "cat: it is not part of this deployment any more.",
  ]);
});

test("a call is told with its status, and with its code where that says more", () => {
  const call = { time: 0, route: "/v1/x", model: "ann", key: "ab12", status_code: 200, status: "ok", total_ms: 1234, prompt_tokens: 5, completion_tokens: 6 };
  assert.deepEqual(callCells(call).slice(1), [["ann"], "ab12", "ok", "1.23", "5", "6"]);
  const refused = { ...call, model: null, key: null, status: null, status_code: 401 };
  assert.deepEqual(callCells(refused).slice(1, 4), ["/v1/x", "–", "401"]);
  assert.equal(callCells({ ...call, status: "cancelled", status_code: null })[3], "cancelled");
});

test("facts that are not known are left out", () => {
  const facts = { weights: "/w", hub_id: null, revision: null, digest: null, dtype: "bfloat16", kv_cache_dtype: "auto", max_model_len: 4096, max_num_seqs: 8 };
  assert.deepEqual(factPairs(facts).map(([title]) => title), ["Weights", "Computes in", "KV cache in", "Context", "Requests at once"]);
});
