// Vercel's AI SDK with its three providers: text, streams, objects, tools in a loop.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { check } from "./checks.mjs";

const [url, model] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const options = { name: "cappella", baseURL: `${url}/v1`, apiKey: "none", supportsStructuredOutputs: true };
const models = {
  responses: openai(model),
  chat: openai.chat(model),
  compatible: createOpenAICompatible(options)(model),
  anthropic: createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" })(model),
};
const city = z.object({ city: z.string() });
const tools = { get_weather: tool({ description: "Weather.", inputSchema: city, execute: async () => "Sunny" }) };
const common = { maxRetries: 0, prompt: "What is the weather in Paris?", onError: () => {} };

for (const [name, llm] of Object.entries(models)) {
  const asked = { model: llm, ...common };
  await check(`${name} generateText`, async () => (await generateText(asked)).text);
  await check(`${name} streamText`, async () => await streamText(asked).text);
  await check(`${name} tool loop`, async () => {
    const done = await generateText({ ...asked, tools, stopWhen: stepCountIs(3) });
    return done.steps.length === 2 && done.text;
  }, { clever: true });
  await check(`${name} streamed tool loop`, async () => {
    const done = streamText({ ...asked, tools, stopWhen: stepCountIs(3) });
    return (await done.text) && (await done.steps).length === 2;
  }, { clever: true });
  await check(`${name} toolChoice required`, async () => {
    const done = await generateText({ ...asked, tools, toolChoice: "required" });
    return done.toolCalls[0].toolName === "get_weather";
  });
  await check(`${name} object`, async () => (await generateText({ ...asked, output: Output.object({ schema: city }) })).output.city);
}
