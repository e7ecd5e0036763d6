"""What an agent's loop asks of an ensemble: who answers at each turn, and that its tools are the same text at each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cappella.config import Config
from cappella.types import Capabilities
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, serving
from support.scripted_engine import Json, Script

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
CALLING = Script((), calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")
SCHEMA: Json = {"type": "object", "properties": {"name": {"type": "string"}}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def called(path: str, number: int) -> list[Json]:
    """A turn of the agent that calls its tool, and the tool's result."""
    id_, given = f"call_{number}", '{"name": "Ann"}'
    if path == RESPONSES:
        return [
            {"type": "function_call", "call_id": id_, "name": "look_up", "arguments": given},
            {"type": "function_call_output", "call_id": id_, "output": f"result {number}"},
        ]
    if path == MESSAGES:
        use = {"type": "tool_use", "id": id_, "name": "look_up", "input": json.loads(given)}
        result = {"type": "tool_result", "tool_use_id": id_, "content": f"result {number}"}
        return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    call = {"id": id_, "type": "function", "function": {"name": "look_up", "arguments": given}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id_, "content": f"result {number}"},
    ]


def body(path: str, turns: list[Json], **more: Any) -> Json:
    if path == RESPONSES:
        tool, name = {"type": "function", "name": "look_up", "parameters": SCHEMA}, "input"
    elif path == MESSAGES:
        tool, name = {"name": "look_up", "input_schema": SCHEMA}, "messages"
    else:
        tool, name = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}, "messages"
    limit = {"max_tokens": 64} if path == MESSAGES else {}
    return {"model": "cappella/tools", name: turns, "tools": [tool], **limit, **more}


async def send(url: str, path: str, wanted: Json) -> Json:
    async with aiohttp.ClientSession() as http, http.post(url + path, json=wanted) as reply:
        answer: Json = await reply.json()
        assert reply.status == 200, answer
        return answer


def asked(fake_engines: FakeEngines) -> Mapping[str, int]:
    """The engine calls of each model since the last time."""
    counts = {name: len(server.bodies) for name, server in fake_engines.servers.items()}
    for server in fake_engines.servers.values():
        server.bodies.clear()
    return counts


ALL = {**dict.fromkeys(MEMBERS, 1), "judge": 1}
ALONE = {**dict.fromkeys(MEMBERS, 0), "judge": 1}
USER = {"role": "user", "content": "Who is Ann?"}


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_the_judge_alone_goes_on_from_the_results_of_tools(
    fake_engines: FakeEngines, gateway: str, path: str
) -> None:
    fusion = {"fusion": {"tools_panel": "judge"}}
    turns = [USER]
    await send(gateway, path, body(path, turns, **fusion))
    assert asked(fake_engines) == ALL
    for number in range(2):
        turns = [*turns, *called(path, number)]
        reply = await send(gateway, path, body(path, turns, **fusion))
        said = fake_engines.servers["judge"].bodies[-1]["messages"]
        assert (said[-1]["role"], said[-1]["content"]) == ("tool", f"result {number}")
        assert asked(fake_engines) == ALONE
        assert reply["fusion"]["status"] == "bypassed"
        assert reply["fusion"]["gate"]["model"] == reply["fusion"]["chosen"] == "judge"
        assert "tools_panel" in reply["fusion"]["gate"]["reason"]
        assert [(call["role"], call["model"]) for call in reply["usage"]["fusion_details"]] == [("single", "judge")]
    await send(gateway, path, body(path, [*turns, {"role": "assistant", "content": "A singer."}, USER], **fusion))
    assert asked(fake_engines) == ALL


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_by_default_the_panel_is_asked_at_each_turn(fake_engines: FakeEngines, gateway: str, path: str) -> None:
    reply = await send(gateway, path, body(path, [USER, *called(path, 0)]))
    assert (asked(fake_engines), reply["fusion"]["status"]) == (ALL, "ok")


async def test_the_operator_may_set_it_for_an_ensemble(fake_engines: FakeEngines) -> None:
    turns = [USER, *called(CHAT, 0)]
    config = gateway_config(tools_panel="judge")
    async with serving(fake_engines, config) as url:
        await send(url, CHAT, body(CHAT, turns))
        assert asked(fake_engines) == ALONE
        await send(url, CHAT, body(CHAT, turns, fusion={"tools_panel": "all"}))
        assert asked(fake_engines) == ALL


@pytest.mark.parametrize("stream", [False, True])
async def test_the_judge_alone_may_call_the_next_tool(fake_engines: FakeEngines, gateway: str, stream: bool) -> None:
    fake_engines.let("judge", CALLING)
    wanted = body(CHAT, [USER, *called(CHAT, 0)], fusion={"tools_panel": "judge"}, stream=stream)
    async with aiohttp.ClientSession() as http, http.post(gateway + CHAT, json=wanted) as reply:
        text = await reply.text()
    frames = [line[6:] for line in text.splitlines() if line.startswith("data: {")] if stream else [text]
    choices = [choice for frame in frames for choice in json.loads(frame)["choices"]]
    given = [choice.get("delta", choice.get("message")) for choice in choices]
    calls = [call for each in given for call in each.get("tool_calls") or ()]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"name": "Ann"}'
    assert (calls[0]["function"]["name"], choices[-1]["finish_reason"]) == ("look_up", "tool_calls")


async def test_the_panel_goes_on_where_the_judge_fails(fake_engines: FakeEngines, gateway: str) -> None:
    replies = iter([Script((), ending="break"), Script(("From", " all"))])
    fake_engines.let("judge", lambda body: next(replies))
    reply = await send(gateway, CHAT, body(CHAT, [USER, *called(CHAT, 0)], fusion={"tools_panel": "judge"}))
    assert reply["choices"][0]["message"]["content"] == "From all"
    assert reply["fusion"]["gate"]["bypass"] is False
    assert asked(fake_engines) == {**ALL, "judge": 2}


async def test_the_image_of_a_result_is_a_result(fake_engines: FakeEngines, gateway: str) -> None:
    turns = [USER, *called(CHAT, 0)]
    turns[-1]["content"] = [{"type": "image_url", "image_url": {"url": PNG}}]
    config = gateway_config()
    for engine in fake_engines.engines.values():
        engine.capabilities = Capabilities(tools=True, images=True)
    models = {name: model.model_copy(update={"images": True}) for name, model in config.models.items()}
    async with serving(fake_engines, config.model_copy(update={"models": models})) as url:
        await send(url, CHAT, body(CHAT, turns, fusion={"tools_panel": "judge"}))
        assert asked(fake_engines) == ALONE
        turns[-1:] = [turns[-1], {"role": "user", "content": "Go on, but be brief."}]
        await send(url, CHAT, body(CHAT, turns, fusion={"tools_panel": "judge"}))
        assert asked(fake_engines) == ALL


TEXT = "What it does, when to call it, and what to watch out for, at some length. " * 12


def big_tools(path: str, turned: bool) -> list[Json]:
    """Sixty tools as agents have them; `turned` writes the fields of each in the opposite order."""
    properties = {
        f"field_{n}": {"type": ["string", "null"], "description": TEXT[:90], "default": None} for n in range(9)
    }
    schema = {"type": "object", "properties": properties, "required": ["field_1", "field_0"]}
    tools: list[Json] = []
    for number in range(60):
        function = {"name": f"tool_{number}", "description": TEXT}
        if path == MESSAGES:
            tools.append(_turned({**function, "input_schema": schema}, turned))
        elif path == RESPONSES:
            tools.append(_turned({"type": "function", **function, "parameters": schema}, turned))
        else:
            inner = _turned({**function, "parameters": schema}, turned)
            tools.append(_turned({"type": "function", "function": inner}, turned))
    return tools


def _turned(value: Json, turned: bool) -> Json:
    return dict(reversed(value.items())) if turned else value


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_sixty_tools_are_the_same_bytes_at_each_turn_for_all_models(fake_engines: FakeEngines, path: str) -> None:
    config = gateway_config()
    server = config.server.model_copy(update={"max_body_bytes": 4 << 20})
    turns, seen = [{"role": "user", "content": "word " * 30_000}], set()
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        for number in range(3):
            wanted = body(path, turns, tools=big_tools(path, turned=number == 1))
            raw = json.dumps(wanted, indent=number or None).encode()
            head = {"Content-Type": "application/json"}
            async with aiohttp.ClientSession() as http, http.post(url + path, data=raw, headers=head) as reply:
                assert reply.status == 200, await reply.text()
            turns = [*turns, *called(path, number)]
    for engine in fake_engines.servers.values():
        assert len(engine.raw) >= 3
        for sent, raw in zip(engine.bodies, engine.raw, strict=True):
            tools = orjson.dumps(sent["tools"])
            assert tools in raw
            seen.add(tools)
    assert len(seen) == 1
    (tools,) = map(orjson.loads, seen)
    assert len(tools) == 60
    given = tools[0]["function"]["parameters"]
    assert (list(given["properties"])[:2], given["required"]) == (["field_0", "field_1"], ["field_1", "field_0"])
    assert given["properties"]["field_0"]["default"] is None


async def test_a_billing_line_that_changes_leaves_the_prompt_the_same(fake_engines: FakeEngines, gateway: str) -> None:
    for number in range(2):
        billed = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.{number}; cch={number}f00;"}
        system = [billed, {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
        await send(gateway, MESSAGES, body(MESSAGES, [USER], system=system))
    for name in MEMBERS:
        first, second = fake_engines.servers[name].raw
        assert first == second
    judge = fake_engines.servers["judge"].bodies
    assert judge[0]["messages"][0] == judge[1]["messages"][0] == {"role": "system", "content": "Be kind."}


RECORDED: dict[str, Json] = {
    each["name"]: each["body"]
    for each in json.loads((Path(__file__).parents[1] / "clients/bodies/claude-code.json").read_text())["requests"]
}
GOES_ON = ("results of two tools", "results with a reminder beside them")


@pytest.mark.parametrize("name", RECORDED)
async def test_text_beside_results_goes_on_and_text_alone_asks_the_panel(fake_engines: FakeEngines, name: str) -> None:
    async with serving(fake_engines, with_room(gateway_config(tools_panel="judge"))) as url:
        await send(url, MESSAGES, {**RECORDED[name], "model": "cappella/tools", "stream": False})
    assert asked(fake_engines) == (ALONE if name in GOES_ON else ALL)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize(("role", "who"), [("system", ALONE), ("user", ALL)])
async def test_a_system_turn_after_results_is_no_new_wish(
    fake_engines: FakeEngines, path: str, role: str, who: Mapping[str, int]
) -> None:
    turns = [USER, *called(path, 0), {"role": role, "content": "Mind the time."}]
    async with serving(fake_engines, with_room(gateway_config(tools_panel="judge"))) as url:
        await send(url, path, body(path, turns))
    assert asked(fake_engines) == who


def with_room(config: Config) -> Config:
    models = {name: model.model_copy(update={"max_model_len": 8000}) for name, model in config.models.items()}
    return config.model_copy(update={"models": models})
