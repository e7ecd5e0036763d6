"""Other people's chat pages, pointed here as they are: the very bodies that they sent to a running gateway.

Recorded from Open WebUI 0.12.4, and from the library that LibreChat calls models with, @librechat/agents 3.9.2.
"""

import json
from typing import Any

import aiohttp
import pytest

from support.fake_engines import FakeEngines

USER = {"user": "65a1b2c3d4e5f60718293a4b"}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Again?"},
]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
# LibreChat's documented defaults, and the empty list that its field for stop words begins with.
DEFAULTS = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "stop": []}
TITLE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
STRUCTURED = {"type": "json_schema", "json_schema": {"name": "extract", "schema": TITLE}}
TASK = [{"role": "user", "content": "### Task:\nGenerate a concise title summarizing the chat history."}]

CHATS = {
    "LibreChat": {**USER, **STREAMED, "messages": TALK},
    "LibreChat, all its settings": {**USER, **STREAMED, **DEFAULTS, "max_tokens": 500, "messages": TALK},
    "LibreChat, in parts": {
        **USER,
        **STREAMED,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    },
    "Open WebUI": {"stream": True, "messages": TALK[1:]},
}
TASKS = {
    "LibreChat's title": {**USER, "stream": False, "messages": TASK},
    "LibreChat's title, structured": {**USER, "stream": False, "response_format": STRUCTURED, "messages": TASK},
    "Open WebUI's title": {"stream": False, "max_tokens": 1000, "messages": TASK},
    "Open WebUI's tags": {"stream": False, "messages": TASK},
}


async def post(url: str, body: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return reply.status, await reply.text()


def streamed(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
async def test_a_chat_page_reads_the_answer_and_nothing_else_out_of_a_stream(
    gateway: str, body: dict[str, Any], events: bool
) -> None:
    asked = {"fusion": {"include_events": True}} if events else {}
    status, text = await post(gateway, {"model": "cappella/default", **body, **asked})
    assert status == 200, text
    chunks = streamed(text)
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {("chat.completion.chunk", "cappella/default")}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "The final answer"
    assert not {key for delta in deltas for key in delta} - {"role", "content"}
    assert any("fusion_event" in chunk for chunk in chunks) is events


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
@pytest.mark.parametrize("body", TASKS.values(), ids=TASKS)
async def test_the_titles_and_tags_that_a_chat_page_asks_for_are_answered(
    gateway: str, fake_engines: FakeEngines, model: str, body: dict[str, Any]
) -> None:
    status, text = await post(gateway, {"model": model, **body})
    assert status == 200, text
    assert json.loads(text)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
async def test_a_single_model_answers_a_chat_page_too(gateway: str, body: dict[str, Any]) -> None:
    status, text = await post(gateway, {"model": "ann", **body})
    assert status == 200, text
    parts = [choice["delta"].get("content") or "" for chunk in streamed(text) for choice in chunk["choices"]]
    assert "".join(parts) == "Hello there"


async def test_an_empty_list_of_stops_counts_as_none(gateway: str, fake_engines: FakeEngines) -> None:
    await post(gateway, {"model": "cappella/default", "messages": TALK, "stop": []})
    assert "stop" not in fake_engines.servers["judge"].bodies[-1]
    status, text = await post(gateway, {"model": "cappella/default", "messages": TALK, "stop": [""]})
    assert (status, json.loads(text)["error"]["param"]) == (400, "stop.0")


async def test_models_without_tools_say_so_to_open_webui(gateway: str) -> None:
    """It sends tools of its own with every message, which an ensemble without `tools: true` refuses."""
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/v1/models") as reply:
        listed = {each["id"]: each for each in (await reply.json())["data"]}
    assert listed["cappella/default"]["info"] == {"meta": {"capabilities": {"builtin_tools": False}}}
    assert {name for name, each in listed.items() if "info" not in each} >= {"cappella/tools", "ann"}
