// Reads one stream and one whole completion with the official Node client, and prints what it saw.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const request = { model: "cappella/default", messages: [{ role: "user", content: "Hi" }] };

const seen = { text: "", events: [] };
const stream = await client.chat.completions.create({ ...request, stream: true, fusion: { include_events: true } });
for await (const chunk of stream) {
  seen.text += chunk.choices[0].delta.content ?? "";
  if (chunk.fusion_event) seen.events.push(chunk.fusion_event.type);
  if (chunk.fusion) seen.status = chunk.fusion.status;
}
seen.whole = (await client.chat.completions.create(request)).choices[0].message.content;
seen.notFound = await client.chat.completions.create({ ...request, model: "nobody" }).catch((error) => error.status);
console.log(JSON.stringify(seen));
