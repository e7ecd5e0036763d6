"""The official client of the Messages API: blocks, streams, tools, cache marks, thinking, counting."""

import sys

from anthropic import Anthropic
from checks import ASK, HI, WEATHER, check

url, model = sys.argv[1:]
client = Anthropic(base_url=url, api_key="none", max_retries=0)
messages = client.messages
common = {"model": model, "max_tokens": 500}
tool = {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}


def streamed() -> bool:
    with messages.stream(**common, messages=HI) as stream:
        return bool("".join(stream.text_stream)) and stream.get_final_message().stop_reason == "end_turn"


def tool_loop(**choice: object) -> bool:
    first = messages.create(**common, messages=ASK, tools=[tool], **choice)
    (call,) = (block for block in first.content if block.type == "tool_use")
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}]}
    turns = [*ASK, {"role": "assistant", "content": first.content}, result]
    second = messages.create(**common, messages=turns, tools=[tool])
    return first.stop_reason == "tool_use" and second.content[-1].type == "text"


def forced() -> bool:
    reply = messages.create(**common, messages=ASK, tools=[tool], tool_choice={"type": "any"})
    return reply.stop_reason == "tool_use" and "city" in reply.content[-1].input


def cached() -> bool:
    mark = {"cache_control": {"type": "ephemeral"}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "Hi", **mark}]}]
    system = [{"type": "text", "text": "Be short.", **mark}]
    return bool(messages.create(**common, system=system, messages=turns, tools=[{**tool, **mark}]).content)


check("create", lambda: messages.create(**common, messages=HI).content[0].text)
check("stream", streamed)
check("tool loop", tool_loop, clever=True)
check("tool_choice any", lambda: tool_loop(tool_choice={"type": "any"}), clever=True)
check("tool_choice tool", lambda: tool_loop(tool_choice={"type": "tool", "name": "get_weather"}), clever=True)
check("forced call", forced)
check("cache_control", cached)
check("thinking off", lambda: messages.create(**common, messages=HI, thinking={"type": "disabled"}))
check(
    "metadata, service_tier",
    lambda: messages.create(**common, messages=HI, metadata={"user_id": "u"}, service_tier="auto"),
)
check("count_tokens", lambda: messages.count_tokens(model=model, messages=HI).input_tokens > 0)
check("models.retrieve", lambda: client.models.retrieve(model).id == model)
