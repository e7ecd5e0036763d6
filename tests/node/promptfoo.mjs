// promptfoo, as it is run in CI: its assertions over the chat and the Responses API, and its figures of tokens.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { check } from "./checks.mjs";

const [url, model] = process.argv.slice(2);
const program = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".bin", "promptfoo");
const folder = process.env.HOME;
const place = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const weather = { name: "get_weather", description: "The weather of a city.", parameters: place };
const form = { name: "place", strict: true, schema: place };
const formats = { chat: { type: "json_schema", json_schema: form }, responses: { type: "json_schema", ...form } };
const tools = { chat: { type: "function", function: weather }, responses: { type: "function", ...weather } };

// One provider with its settings, and what its answer to the prompt must be.
function asked(api, label, assert, more = {}) {
  const settings = { apiBaseUrl: `${url}/v1`, apiKey: "none", max_tokens: 60, ...more };
  const provider = { id: `openai:${api}:${model}`, label: `${api} ${label}`, config: settings };
  return { provider, test: { vars: { city: "Paris" }, providers: [provider.label], assert } };
}

const all = ["chat", "responses"].flatMap((api) => [
  asked(api, "answer", [{ type: "javascript", value: "output.length > 0" }]),
  asked(api, "contains", [{ type: "contains", value: "green" }]),
  asked(api, "json_schema", [{ type: "is-json", value: place }], { response_format: formats[api] }),
  asked(api, "tool_choice required", [{ type: "javascript", value: "JSON.stringify(output).includes('get_weather')" }], {
    tools: [tools[api]],
    tool_choice: "required",
  }),
]);

// All results by the label of their provider.
function results() {
  const [config, out] = ["promptfooconfig.json", "out.json"].map((name) => join(folder, name));
  const [providers, tests] = [all.map((each) => each.provider), all.map((each) => each.test)];
  writeFileSync(config, JSON.stringify({ prompts: ["What is the weather in {{city}}?"], providers, tests }));
  const quiet = { PROMPTFOO_DISABLE_TELEMETRY: "1", PROMPTFOO_DISABLE_UPDATE: "1", PROMPTFOO_CONFIG_DIR: folder };
  const argv = ["eval", "-c", config, "-o", out, "--no-cache", "--no-table", "--no-progress-bar", "--no-write", "-j", "1"];
  const done = spawnSync(process.execPath, [program, ...argv], { env: { ...process.env, ...quiet }, encoding: "utf8" });
  if (![0, 100].includes(done.status)) throw new Error(done.stderr || done.stdout);
  return Object.fromEntries(JSON.parse(readFileSync(out)).results.results.map((each) => [each.provider.label, each]));
}

let found;
await check("eval", () => (found = results()) && Object.keys(found).length === all.length);
for (const { label } of all.map((each) => each.provider))
  await check(label, () => {
    if (!found[label].success) throw new Error(found[label].error);
    return true;
  }, { clever: label.endsWith("contains") });
await check("chat tokens", () => found["chat answer"].response.tokenUsage.total > 0);
await check("responses tokens", () => found["responses answer"].response.tokenUsage.total > 0);
