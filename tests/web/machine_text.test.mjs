// The words and measures of the Machine view.

import assert from "node:assert/strict";
import test from "node:test";

import {
  memoryBars,
  confirmation,
  isStarting,
  formatNumber,
  formatPercent,
  reasonText,
  replicaText,
  restartsText,
  formatBytes,
  stageText,
  summaryText,
  stateTone,
  toolServerCells,
  withReplicas,
} from "../../runtime/cappella/gateway/web/assets/machine_text.js";

const GIB = 2 ** 30;
const device = (more) => ({ device: "GPU 0", total_bytes: 10 * GIB, free_bytes: 4 * GIB, ...more });

test("an unknown figure is a dash, and zero is a number", () => {
  assert.deepEqual([formatBytes(null), formatPercent(undefined), formatNumber(null)], ["–", "–", "–"]);
  assert.deepEqual([formatBytes(0), formatPercent(0), formatNumber(0), formatNumber(12.34)], ["0 MiB", "0%", "0", "12.3"]);
  assert.equal(formatBytes(1.5 * GIB), "1.5 GiB");
});

test("each server of a model with replicas has its calls, and what is wrong with it", () => {
  const ready = { name: "big-1", state: "ready", stage: "ready", in_flight: 3, max_num_seqs: 64, failed: 0 };
  const loading = { ...ready, state: "loading", stage: "loading weights", remaining_s: 3.2, in_flight: 0, failed: 2 };
  assert.equal(replicaText(ready), "3 of 64 calls");
  assert.equal(replicaText(loading), "loading weights, about 4 s left · 0 of 64 calls, 2 broke");
});

test("what is asked of a replica is followed as what is asked of an engine", () => {
  const engines = { big: { state: "ready", replicas: [{ name: "big-1", state: "stopped" }] }, small: { state: "ready" } };
  const states = Object.entries(withReplicas(engines)).map(([name, each]) => `${name} ${each.state}`);
  assert.deepEqual(states, ["big ready", "small ready", "big-1 stopped"]);
});

test("a start says how long it still takes, and a failed engine says why", () => {
  assert.equal(stageText({ state: "loading", stage: "loading weights", remaining_s: 11.2 }), "loading weights, about 12 s left");
  assert.equal(stageText({ state: "loading", stage: "loading weights", remaining_s: 0 }), "loading weights");
  assert.equal(stageText({ state: "ready", stage: "ready", reason: null }), "");
  const hung = { state: "restarting", stage: "importing vLLM", reason: "it hung" };
  assert.deepEqual([stageText(hung), reasonText(hung)], ["importing vLLM", "Reason: it hung"]);
  const failed = { state: "failed", stage: "gave up after 5 tries: it hung", reason: "it hung" };
  assert.deepEqual([stageText(failed), reasonText(failed)], ["gave up after 5 tries", "Reason: it hung"]);
  assert.equal(reasonText({ state: "ready", stage: "ready", reason: null }), "");
});

test("an engine that has recovered says when and why it failed last, and a failed one only why it is down", () => {
  const at = new Date();
  at.setHours(3, 12, 0, 0);
  const last_failure = { time: at.getTime() / 1000, reason: "killed by signal 9 (SIGKILL)", log: "/logs/ann.log" };
  const ready = { state: "ready", stage: "ready", reason: null, last_failure };
  assert.equal(reasonText(ready), "last failed 03:12: killed by signal 9 (SIGKILL) (log: /logs/ann.log)");
  assert.equal(reasonText({ ...ready, last_failure: { ...last_failure, log: null } }), "last failed 03:12: killed by signal 9 (SIGKILL)");
  const earlier = { ...last_failure, time: last_failure.time - 86400 };
  assert.match(reasonText({ ...ready, last_failure: earlier }), /^last failed .*\d.* 0?\d:12: killed/);
  assert.equal(reasonText({ ...ready, reason: "it hung" }), "Reason: it hung");
});

test("a server of another version, or a narrow key, breaks nothing", () => {
  assert.equal(stageText({ state: "dreaming" }), "");
  assert.equal(stateTone("dreaming"), "warn");
  assert.equal(restartsText({}), "–");
  assert.equal(summaryText({}), "0 of 0 engines ready; 0 of 0 ensembles answer.");
  assert.deepEqual(memoryBars(device({}), {}).map((bar) => bar.segments.map((each) => each.name)), [[], [null]]);
  assert.equal(confirmation("dance", "ann").verb, "dance");
});

test("the summary counts sleeping engines as ready, and names the failed ones", () => {
  const engines = { ann: { state: "ready" }, bob: { state: "asleep" }, cat: { state: "failed" }, dan: { state: "stopped" } };
  const ensembles = { default: { answers: true }, other: { answers: false } };
  assert.equal(summaryText({ engines, ensembles }), "2 of 4 engines ready; 1 of 2 ensembles answer. Failed: cat.");
  assert.equal(isStarting({ state: "asleep", progress: 0 }), false);
  assert.equal(isStarting({ state: "asleep", progress: 0.4 }), true);
  assert.equal(restartsText({ restarts: 1, wakes: 3 }), "1, woken 3 times");
  assert.deepEqual(["waiting", "loading", "restarting", "ready"].map((state) => isStarting({ state })), [true, true, true, false]);
});

test("the bars of a device show the plan, the engines' memory and that of other processes", () => {
  const engines = { ann: { used_bytes: 4 * GIB, gpus: [0, 1] }, bob: { used_bytes: 3 * GIB, gpus: [0] }, cat: { used_bytes: null } };
  const [planned, used] = memoryBars(device({ engines: { ann: 2 * GIB, bob: 4 * GIB, cat: GIB } }), engines);
  assert.deepEqual(planned.segments.map((each) => [each.name, each.share]), [["ann", 0.2], ["bob", 0.4], ["cat", 0.1]]);
  // Half of what ann holds on two GPUs; the rest of the six that are taken is somebody else's.
  assert.deepEqual(used.segments.map((each) => [each.name, each.bytes / GIB]), [["ann", 2], ["bob", 3], [null, 1]]);
  assert.equal(used.label, "GPU 0, used: ann 2.0 GiB, bob 3.0 GiB, others 1.0 GiB of 10.0 GiB");
});

test("where the driver does not tell what engines hold, what is taken is not called others'", () => {
  const engines = { ann: { state: "ready", used_bytes: null, gpus: [0] } };
  const [, used] = memoryBars(device({ engines: { ann: 2 * GIB } }), engines);
  assert.equal(used.label, "GPU 0, used: engines and others 6.0 GiB of 10.0 GiB");
  const [, stopped] = memoryBars(device({ engines: { ann: 2 * GIB } }), { ann: { state: "stopped", used_bytes: null } });
  assert.equal(stopped.label, "GPU 0, used: others 6.0 GiB of 10.0 GiB");
});

test("each swap group has a bar, and no bar is longer than its device", () => {
  const engines = { judge: { turn: null }, ann: { turn: 0 }, bob: { turn: 1 } };
  const bars = memoryBars(device({ engines: { judge: 4 * GIB, ann: 5 * GIB, bob: 9 * GIB } }), engines);
  assert.deepEqual(bars.map((bar) => bar.title), ["planned, swap group 1", "planned, swap group 2", "used"]);
  assert.deepEqual(bars[1].segments.map((each) => [each.name, each.share]), [["judge", 0.4], ["bob", 0.6]]);
});

test("a tool server says what it offers, or why it offers nothing", () => {
  const up = { state: "ready", problem: null, tools: ["echo"], calls: 2, failed: 1, confined_by: "no network", notes: [] };
  assert.deepEqual(toolServerCells(["git", up]), [["git"], "ready", ["echo"], "2", "1", "no network"]);
  const down = { ...up, state: "down", problem: "it ended", tools: [] };
  assert.deepEqual(toolServerCells(["git", down]), [["git"], "down: it ended", "–", "2", "1", "no network"]);
  assert.equal(toolServerCells(["git", { ...up, notes: ["tool 'x' is left out"] }])[1], "ready: tool 'x' is left out");
});
