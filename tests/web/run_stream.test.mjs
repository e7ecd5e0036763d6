// One request and its stream: a fault in showing it does not keep it from ending.
import assert from "node:assert/strict";
import test from "node:test";

import { startRun } from "../../runtime/cappella/gateway/web/assets/run_stream.js";

test("a run ends also where showing it fails, and the fault is reported", async () => {
  const reported = [];
  Object.assign(globalThis, {
    requestAnimationFrame: () => 1,
    cancelAnimationFrame: () => {},
    reportError: (error) => reported.push(error.message),
  });
  const api = { stream: async (_, onChunk) => onChunk({ choices: [{ delta: { content: "Hello." } }] }) };
  const broken = () => {
    throw new TypeError("cannot be shown");
  };
  const run = await startRun(api, {}, broken).done;
  assert.equal(run.answer.text, "Hello.");
  assert.deepEqual(reported, ["cannot be shown"]);
});

/** How many characters are shown each time, where one comes in each millisecond and showing them takes `tookMs`. */
async function lengthsShown(test, characters, tookMs) {
  let nowMs = 0;
  test.mock.method(performance, "now", () => nowMs);
  Object.assign(globalThis, { requestAnimationFrame: (show) => (show(), 0), cancelAnimationFrame: () => {} });
  const shown = [];
  const show = (run) => {
    shown.push(run.answer.text);
    nowMs += tookMs;
  };
  const stream = async (_, onChunk) => {
    for (let at = 0; at < characters; at += 1) {
      nowMs += 1;
      onChunk({ choices: [{ delta: { content: "x" } }] });
    }
  };
  await startRun({ stream }, {}, show).done;
  return shown.map((text) => text.length);
}

test("showing a change that takes long is followed by a rest of 250 ms at most, and the end is shown whole", async (test) => {
  assert.deepEqual(await lengthsShown(test, 100, 20), [0, 80, 100]);
  assert.deepEqual(await lengthsShown(test, 600, 200), [0, 250, 500, 600]);
});
