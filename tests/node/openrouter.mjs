// OpenRouter's TypeScript client with another address: chat, stream, tools, the fusion plugin, and the fusion server tool.
import { OpenRouter } from "@openrouter/sdk";
import { check } from "./checks.mjs";

const [url, model] = process.argv.slice(2);
const client = new OpenRouter({ apiKey: "none", serverURL: `${url}/v1`, retryConfig: { strategy: "none" } });
const messages = [{ role: "user", content: "What is the weather in Paris? Use the tool." }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "get_weather", description: "The weather of a city.", parameters } };
const schema = { name: "place", strict: true, schema: { ...parameters, additionalProperties: false } };
const panel = { type: "openrouter:fusion", parameters: { maxToolCalls: 4 } };
const fusion = { id: "fusion", enabled: true, maxToolCalls: 2 };
const fused = { model, input: "Hi", tools: [panel], toolChoice: "required" };
const chat = async (more = {}) => await client.chat.send({ chatRequest: { model, messages, ...more } });
const respond = async (more = {}) => await client.beta.responses.send({ responsesRequest: { model, input: "Hi", ...more } });
const message = async (more) => (await chat(more)).choices[0].message;

await check("chat", async () => (await message()).content);
await check("usage", async () => (await chat()).usage.promptTokens > 0);
await check("stream", async () => {
  let text = "";
  for await (const chunk of await chat({ stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
});
await check("tool_choice required", async () => {
  const { toolCalls } = await message({ tools: [weather], toolChoice: "required" });
  return "city" in JSON.parse(toolCalls[0].function.arguments);
});
await check("tool loop", async () => {
  const asked = await message({ tools: [weather] });
  const result = { role: "tool", toolCallId: asked.toolCalls[0].id, content: "Sunny" };
  return (await message({ tools: [weather], messages: [...messages, asked, result] })).content;
}, { clever: true });
await check("json_schema", async () =>
  JSON.parse((await message({ responseFormat: { type: "json_schema", jsonSchema: schema } })).content).city);
await check("plugin", async () => (await message({ plugins: [fusion] })).content);
await check("server tool", async () => (await message({ tools: [panel], toolChoice: "required" })).content);
await check("responses", async () => (await respond()).outputText ?? (await respond()).output.at(-1).content[0].text);
await check("responses stream", async () => {
  const kinds = [];
  for await (const event of await respond({ stream: true })) kinds.push(event.type);
  return kinds.includes("response.output_text.delta") && kinds.at(-1) === "response.completed";
});
await check("server tool, item", async () => {
  const [first, last] = [(await respond(fused)).output].map((all) => [all[0], all.at(-1)])[0];
  return first.type === "openrouter:fusion" && last.type === "message" && first.responses.length;
});
await check("server tool, events", async () => {
  const kinds = new Set();
  for await (const event of await respond({ ...fused, stream: true })) kinds.add(event.type);
  return ["in_progress", "panel.added", "panel.completed", "completed"].every((each) => kinds.has(`response.fusion_call.${each}`));
});
await check("models", async () => (await client.models.list()).result.data.some((each) => each.id === model));
