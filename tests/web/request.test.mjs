// The bodies of requests.

import assert from "node:assert/strict";
import test from "node:test";

import { modelRequestBody } from "../../runtime/cappella/gateway/web/assets/request.js";

test("a single model gets the system prompt and the sampling that were chosen, and tells its tokens", () => {
  const choice = { model: "bob", system: "Be brief.", sampling: { temperature: 0.5 } };
  assert.deepEqual(modelRequestBody(choice, "Why?"), {
    model: "bob",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Why?" },
    ],
    temperature: 0.5,
    stream_options: { include_usage: true },
  });
  assert.deepEqual(modelRequestBody({ model: "bob" }, "Why?").messages, [{ role: "user", content: "Why?" }]);
});
