"""OpenRouter's Python client with another address: chat, stream, the fusion plugin, and the fusion server tool."""

import sys

from checks import HI, check
from openrouter import OpenRouter

url, model = sys.argv[1:]
# Without a limit of its own its HTTP library gives up after five seconds, and it asks anew for an hour.
client = OpenRouter(api_key="none", server_url=f"{url}/v1", timeout_ms=600_000)


def streamed() -> bool:
    chunks = client.chat.send(model=model, messages=HI, stream=True)
    return bool("".join(str(each.choices[0].delta.content or "") for each in chunks if each.choices))


TOOL = {
    "type": "openrouter:fusion",
    "parameters": {"max_tool_calls": 4, "reasoning": {"effort": "low", "max_tokens": 99}},
}
PLUGIN = {"id": "fusion", "enabled": True, "max_tool_calls": 2, "tools": [{"type": "openrouter:web_search"}]}
FUSED = {"model": model, "input": "Hi", "tools": [TOOL], "tool_choice": "required"}
EVENTS = "in_progress panel.added panel.completed completed"


def panel_item() -> bool:
    first, *_, message = client.beta.responses.send(**FUSED).output
    return (first.type, message.type) == ("openrouter:fusion", "message") and bool(first.responses)


def panel_events() -> bool:
    got = {each.type for each in client.beta.responses.send(**FUSED, stream=True)}
    return "response.completed" in got and all(f"response.fusion_call.{each}" in got for each in EVENTS.split())


check("chat", lambda: client.chat.send(model=model, messages=HI).choices[0].message.content)
check("stream", streamed)
check("plugin", lambda: client.chat.send(model=model, messages=HI, plugins=[PLUGIN]))
check("responses", lambda: client.beta.responses.send(model=model, input="Hi"))
check("server tool", lambda: client.chat.send(model=model, messages=HI, tools=[TOOL], tool_choice="required"))
check("server tool, item", panel_item)
check("server tool, events", panel_events)
check("models", lambda: model in {each.id for each in client.models.list().result.data})
