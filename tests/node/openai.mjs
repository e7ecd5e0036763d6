// The official Node client, as it is: both APIs, tools run by it, formats of zod.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { check } from "./checks.mjs";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const Place = z.object({ city: z.string() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "The weather of a city.", parameters };

await check("chat", async () => (await client.chat.completions.create({ model, messages })).choices[0].message.content);
await check("chat stream", async () => {
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? "";
  return text;
});
await check("chat.parse", async () => {
  const asked = { model, messages, response_format: zodResponseFormat(Place, "place") };
  return (await client.chat.completions.parse(asked)).choices[0].message.parsed.city;
});
await check("runTools", async () => {
  const run = { ...weather, parse: JSON.parse, function: ({ city }) => `Sunny in ${city}` };
  return await client.chat.completions.runTools({ model, messages, tools: [{ type: "function", function: run }] }).finalContent();
});
await check("tool_choice required", async () => {
  const asked = { model, messages, tool_choice: "required", tools: [{ type: "function", function: weather }] };
  return (await client.chat.completions.create(asked)).choices[0].message.tool_calls[0].function.name === "get_weather";
});
await check("responses", async () => (await client.responses.create({ model, input: "Hi" })).output_text);
await check("responses.parse", async () => {
  const asked = { model, input: "Hi", text: { format: zodTextFormat(Place, "place") } };
  return (await client.responses.parse(asked)).output_parsed.city;
});
await check("responses.stream", async () => (await client.responses.stream({ model, input: "Hi" }).finalResponse()).output_text);
await check("models.retrieve", async () => (await client.models.retrieve(model)).id === model);
