"""No legal body holds the event loop, on which all other requests wait.

The gateway, its scripted engines and the client share this loop; of these only the gateway's work counts, each callback and step
of a task for itself. What counts is the CPU time of the loop's thread, the least of some tries, so that a busy machine makes little
difference. The faults that this found took 6 ms to 70 s.
"""

import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from cappella.config.limits import Limits
from cappella.engines.sanitize import Sanitizer
from cappella.types import Capabilities
from support.fake_engines import FakeEngines, gateway_config, serving
from support.loop_watchdog import held_too_long

SIZE = 3_900_000
LIMITS = Limits()
SPECIAL = tuple(f"<|reserved_special_token_{number}|>" for number in range(818))
SCHEMA = {"type": "object", "properties": {f"p{n}": {"type": "string", "pattern": f"[a-z]{{{n}}}"} for n in range(250)}}
LONG = {"type": "object", "properties": {f"p{n}": {"type": "string", "description": "<|" * 60} for n in range(40)}}
DEEP = {
    "$defs": {f"a{n}": {"properties": {"x": {"$ref": f"#/$defs/a{n + 1}"}}} for n in range(40)} | {"a40": {}},
    "$ref": "#/$defs/a0",
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (SIZE // LIMITS.images)}}


def text_parts(kind: str, count: int, size: int = SIZE) -> list[Any]:
    return [{"type": kind, "text": "<|" * (size // count // 2)}] * count


def said(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def round_of_tools(number: int) -> list[dict[str, Any]]:
    """A call of an agent and its result of about 750 tokens."""
    call = {"id": f"c{number}", "type": "function", "function": {"name": "t1", "arguments": '{"p1": "a"}'}}
    result = {"role": "tool", "tool_call_id": f"c{number}", "content": "line of a file\n" * 200}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, result]


def calls_by_name(count: int) -> list[dict[str, Any]]:
    """A turn of so many calls, and results that name only the tools."""
    names = [f"t{number}" for number in range(count)]
    calls = [{"function": {"name": name, "arguments": {}}} for name in names]
    results = [{"role": "tool", "content": "x", "tool_name": name} for name in names[: -LIMITS.messages + 2 : -1]]
    return [{"role": "assistant", "content": "", "tool_calls": calls}, *results]


USER = {"role": "user", "content": "x"}
TOOL = {"name": "look_up", "description": "<|" * 1000}
CHATS: dict[str, dict[str, Any]] = {
    "one text of beginnings of tokens": said("<|" * (SIZE // 2)),
    "one text of tokens": said(SPECIAL[7] * (SIZE // len(SPECIAL[7]))),
    "most messages": {"messages": said("<|" * 900)["messages"] * LIMITS.messages},
    "most parts": said(text_parts("text", LIMITS.parts)),
    "most images": said([PICTURE] * LIMITS.images),
    "a call with long arguments": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "<|" * (SIZE // 2)}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "yes"},
        ]
    },
    "most tools": {
        **said("Hi"),
        "tools": [{"type": "function", "function": {**TOOL, "parameters": {"enum": ["<"] * 400}}}] * LIMITS.tools,
    },
    "an agent's turn": {
        "messages": [*said("Mend it.")["messages"], *(turn for n in range(40) for turn in round_of_tools(n))],
        "tools": [{"type": "function", "function": {**TOOL, "parameters": LONG, "name": f"t{n}"}} for n in range(60)],
    },
    "a schema with most patterns": {
        **said("Hi"),
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    },
    "a schema of references": {**said("Hi"), "structured_outputs": {"json": json.dumps(DEEP)}},
    "most choices": {**said("Hi"), "structured_outputs": {"choice": [f"{n:060}" for n in range(LIMITS.choices)]}},
}
BODIES = [
    *(("/v1/chat/completions", name, body) for name, body in CHATS.items()),
    ("/v1/completions", "one prompt", {"prompt": "<|" * (SIZE // 2)}),
    ("/v1/completions", "token ids", {"prompt": [100_000] * (SIZE // 8)}),
    ("/v1/responses", "one input", {"input": "<|" * (SIZE // 2)}),
    ("/v1/responses", "most items", {"input": [{"role": "user", "content": "<|" * 900}] * LIMITS.messages}),
    (
        "/v1/responses",
        "most parts",
        {"input": [{"role": "user", "content": text_parts("input_text", LIMITS.parts)}]},
    ),
    ("/v1/messages", "one text", {**said("<|" * (SIZE // 2)), "max_tokens": 32_000}),
    ("/v1/messages", "most parts", {**said(text_parts("text", LIMITS.parts)), "max_tokens": 32_000}),
    (
        "/v1/messages",
        "a tool's arguments",
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": "1", "name": "a", "input": {f"<|{n}": n for n in range(90_000)}}
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "yes"}]},
            ],
            "max_tokens": 9,
        },
    ),
]
BODIES += [
    ("/v1/messages/count_tokens", "one text", said("<|" * (SIZE // 2))),
    ("/v1/messages/count_tokens", "most messages", CHATS["most messages"]),
    ("/api/chat", "one text", said("<|" * (SIZE // 2))),
    ("/api/chat", "a schema with most patterns", {**said("Hi"), "format": SCHEMA}),
    *(("/api/chat", name, CHATS[name]) for name in ("most messages", "most tools", "an agent's turn")),
    ("/api/chat", "most images", {"messages": [{**USER, "images": ["A" * (SIZE // LIMITS.images)] * LIMITS.images}]}),
    ("/api/chat", "most calls, answered from the last to the first", {"messages": [USER, *calls_by_name(6000)]}),
    ("/api/generate", "one text", {"prompt": "<|" * (SIZE // 2)}),
    ("/tokenize", "one text", {"prompt": "<|" * (SIZE // 2)}),
]
TEXT = [{"type": "text", "text": "x"}]
CALLED = [{"id": str(n), "type": "function", "function": {"name": "a", "arguments": "{}"}} for n in range(1100)]
SMALL: dict[str, dict[str, Any]] = {
    "objects": {**said("x"), "metadata_of_mine": [[1]] * 16_000},
    "messages": {"messages": [USER] * LIMITS.messages},
    "parts": {"messages": [{"role": "user", "content": TEXT * 2900}]},
    "messages of a part": {"messages": [{"role": "user", "content": TEXT}] * 1500},
    "unknown fields": {**said("x"), **{f"f{n}": 1 for n in range(8000)}},
    "unknown fields of messages": {"messages": [{**USER, "zz": 1, "yy": 2}] * 1900},
    "calls": {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": CALLED},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
    },
}
"""Below what is read on a thread for its size alone: what counts is how many values there are."""
for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
    small = ("objects", "messages", "parts", "unknown fields of messages") if path != "/v1/chat/completions" else SMALL
    own = {"max_tokens": 9} if path == "/v1/messages" else {}
    BODIES += [
        (path, f"100 kB of {name}", {**SMALL[name], **own}) for name in small if path != "/api/chat" or name != "parts"
    ]
BODIES += [
    ("/v1/responses", f"100 kB of {name}", {"input": SMALL[name]["messages"]})
    for name in ("messages", "unknown fields of messages")
]
BODIES += [(path, "100 kB of messages", SMALL["messages"]) for path in ("/tokenize", "/v1/messages/count_tokens")]
CALLS = [
    pytest.param(path, model, body, id=f"{path} {model}: {name}")
    for path, name, body in BODIES
    for model in ("cappella/tools", "ann")
    if path not in ("/v1/completions", "/tokenize") or model == "ann"
]


@pytest.fixture
async def url(fake_engines: FakeEngines) -> AsyncIterator[str]:
    config = gateway_config()
    models = {name: model.model_copy(update={"images": True}) for name, model in config.models.items()}
    server = config.server.model_copy(update={"max_body_bytes": 4 << 20})
    for engine in fake_engines.engines.values():
        engine.capabilities = Capabilities(tools=True, images=True, reasoning=True)
        engine._sanitizer = Sanitizer(SPECIAL)
    async with serving(fake_engines, config.model_copy(update={"server": server, "models": models})) as url:
        yield url


@pytest.mark.parametrize(("path", "model", "body"), CALLS)
async def test_no_legal_body_holds_the_loop(url: str, path: str, model: str, body: dict[str, Any]) -> None:
    raw = json.dumps({"model": model, **body}).encode()
    headers = {"Content-Type": "application/json"}

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}{path}", data=BytesIO(raw), headers=headers) as reply,
        ):
            answer = await reply.read()
        assert (reply.status, answer[:200] if reply.status != 200 else b"") == (200, b"")

    assert await held_too_long(ask) == {}


WRONG: dict[str, dict[str, Any]] = {
    "100 kB of unknown options": {**said("x"), "fusion": {f"f{n}": 1 for n in range(8000)}},
    "unknown options": {**said("x"), "fusion": {f"f{n}": 1 for n in range(250_000)}},
    "an unknown option of megabytes": {**said("x"), "fusion": {"f" * SIZE: 1}},
    "100 kB of wrong types": {"messages": [{"role": "user", "content": 7}] * 2000},
    "objects": {**said("x"), "x": [[1]] * 600_000},
    "wrong calls": {"messages": [{"role": "assistant", "content": "", "tool_calls": [1] * 1_200_000}]},
    "a model of megabytes": {**said("x"), "model": "m" * SIZE},
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in WRONG.items()])
async def test_no_wrong_body_holds_the_loop_or_is_told_in_full(url: str, body: dict[str, Any]) -> None:
    """The first of these held it for 6 s; the second would have kept a thread busy for hours."""
    raw = json.dumps({"model": "cappella/tools", **body}).encode()
    headers = {"Content-Type": "application/json"}

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}/v1/chat/completions", data=BytesIO(raw), headers=headers) as reply,
        ):
            answer = await reply.read()
        assert reply.status in (400, 404)
        assert len(answer) < 5000

    assert await held_too_long(ask) == {}
