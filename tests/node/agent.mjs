// A streamed tool loop, and the same answer through the Responses API, with the official Node client.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const model = "cappella/default";
const fusion = { include_events: true };
const parameters = { type: "object", properties: { attribute: { type: "string" }, name: { type: "string" } } };
const tools = [{ type: "function", function: { name: "look_up", parameters } }];
const messages = [{ role: "user", content: "What is the price of Tunagox?" }];
const seen = { arguments: "", text: "", events: [] };

let call;
for await (const chunk of await client.chat.completions.create({ model, messages, tools, stream: true })) {
  for (const piece of chunk.choices[0].delta.tool_calls ?? []) {
    call ??= piece;
    seen.arguments += piece.function.arguments ?? "";
  }
}
const asked = { id: call.id, type: "function", function: { name: call.function.name, arguments: seen.arguments } };
messages.push({ role: "assistant", content: null, tool_calls: [asked] });
messages.push({ role: "tool", tool_call_id: call.id, content: "61" });
seen.text = (await client.chat.completions.create({ model, messages, tools })).choices[0].message.content;

for await (const event of await client.responses.create({ model, input: "Hello", stream: true, fusion })) {
  seen.events.push(event.type);
}
console.log(JSON.stringify(seen));
