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
