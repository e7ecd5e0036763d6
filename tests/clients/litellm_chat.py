"""A tool loop through LiteLLM over a running server; prints the last answer."""

import json
import sys

import litellm

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"attribute": {"type": "string"}, "name": {"type": "string"}},
        },
    },
}
where = {"model": "openai/cappella/default", "api_base": f"{sys.argv[1]}/v1", "api_key": "none", "num_retries": 0}
messages = [{"role": "user", "content": "What is the price of Tunagox?"}]
first = litellm.completion(messages=messages, tools=[TOOL], **where).choices[0].message
(call,) = first.tool_calls
assert json.loads(call.function.arguments) == {"attribute": "price", "name": "Tunagox"}
asked = {"id": call.id, "type": "function", "function": {"name": "look_up", "arguments": call.function.arguments}}
messages.append({"role": "assistant", "content": first.content or "", "tool_calls": [asked]})
messages.append({"role": "tool", "tool_call_id": call.id, "content": "61"})
chunks = litellm.completion(messages=messages, tools=[TOOL], stream=True, **where)
print("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
