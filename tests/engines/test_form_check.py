"""Forms of answers are compiled before an engine sees them: what it would refuse never reaches it."""

import json
from typing import Any

import aiohttp
import pytest

from cappella.engines.vllm import form_check
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import EngineRejected
from cappella.types import OutputFormat, Prompt, Sampling
from support.fake_engines import FakeEngines

pytest.importorskip("llguidance")

HI = [{"role": "user", "content": "Hi"}]
UNIQUE = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}
GOOD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def tool(parameters: Any, choice: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}], "tool_choice": choice}


REFUSED = {
    "response_format": schema(UNIQUE),
    "inside": schema({**GOOD, "properties": {"a": {"type": "string", "format": "no-such"}}}),
    "json": {"structured_outputs": {"json": UNIQUE}},
    "json as text": {"structured_outputs": {"json": json.dumps(UNIQUE)}},
    "regex": {"structured_outputs": {"regex": "(?=a)b"}},
    "grammar": {"structured_outputs": {"grammar": "start: nothing"}},
    "gbnf": {"structured_outputs": {"grammar": 'root ::= "a" b'}},
    "tools": tool(UNIQUE, "required"),
    "named tool": tool(UNIQUE, {"type": "function", "function": {"name": "f"}}),
    "structural tag": {"structured_outputs": {"structural_tag": json.dumps({"structures": [{"schema": UNIQUE}]})}},
}
TOO_COSTLY = {
    "states": schema({"type": "integer", "multipleOf": 9_999_991}),
    "regular expressions at once": schema(
        {"allOf": [{"type": "string", "pattern": f".*{first}bcd.*"} for first in "abcdefghijklmnopqrst"]}
    ),
}
TAKEN = {
    "schema": schema(GOOD),
    "no schema": schema(7),
    "regex": {"structured_outputs": {"regex": "[ab]+"}},
    "special token": {"structured_outputs": {"grammar": "start: <|tool|> /a/"}},
    "tools by choice": tool(UNIQUE, "auto"),
    "another named tool": tool(UNIQUE, {"type": "function", "function": {"name": "g"}}),
    "no choices": {"structured_outputs": {"choice": [7]}},
    "plain": {"response_format": {"type": "text"}, "text": "x"},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
async def test_a_form_that_cannot_be_compiled_never_reaches_an_engine(
    gateway: str, fake_engines: FakeEngines, fields: dict[str, Any]
) -> None:
    async with aiohttp.ClientSession() as http:
        body = {"model": "ann", "messages": HI, **fields}
        async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
            error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (400, "engine_rejected")
    assert "rammar" in error["message"]
    assert not fake_engines.servers["ann"].bodies


@pytest.mark.parametrize("fields", TAKEN.values(), ids=TAKEN)
async def test_the_engine_decides_on_all_others(fields: dict[str, Any]) -> None:
    await form_check.require_compilable(fields)
    await form_check.require_compilable_body(json.dumps(fields).encode())


async def test_a_call_of_a_run_is_checked_too(fake_engines: FakeEngines) -> None:
    engine: VllmEngine = fake_engines.engines["ann"]
    prompt = Prompt(HI, output_format=OutputFormat("response_format", schema(UNIQUE)["response_format"]))
    with pytest.raises(EngineRejected, match="uniqueItems"):
        async for _ in engine.chat(prompt, Sampling()):
            pass
    assert not fake_engines.servers["ann"].bodies
    assert (engine.in_flight, engine.circuit_breaker.is_open) == (0, False)


@pytest.mark.parametrize("fields", TOO_COSTLY.values(), ids=TOO_COSTLY)
async def test_a_form_that_takes_all_time_or_memory_never_reaches_an_engine(
    gateway: str, fake_engines: FakeEngines, fields: dict[str, Any]
) -> None:
    engine = fake_engines.engines["ann"]
    async with aiohttp.ClientSession() as http:
        body = {"model": "ann", "messages": HI, **fields}
        async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
            error = (await reply.json())["error"]
        assert (reply.status, error["code"], error["message"]) == (400, "engine_rejected", form_check.TOO_COSTLY)
        async with http.post(f"{gateway}/v1/chat/completions", json={**body, **schema(GOOD)}) as reply:
            assert reply.status == 200
    assert [body["response_format"] for body in fake_engines.servers["ann"].bodies] == [schema(GOOD)["response_format"]]
    assert not engine.circuit_breaker.is_open


@pytest.mark.parametrize(
    "more", [{}, {"messages": [{"role": "user", "content": "Hi " * 100_000}]}], ids=["short", "long"]
)
@pytest.mark.parametrize("name", ["response_format", r"respons\u0065_format"], ids=["plain", "escaped"])
async def test_a_form_is_found_in_a_body_of_any_size_and_spelling(name: str, more: dict[str, Any]) -> None:
    body = json.dumps({"messages": HI, **schema(UNIQUE), **more}).replace("response_format", name)
    with pytest.raises(EngineRejected, match="uniqueItems"):
        await form_check.require_compilable_body(body.encode())


async def test_without_llguidance_the_engine_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_check, "_INSTALLED", False)
    await form_check.require_compilable(schema(UNIQUE))
    await form_check.require_compilable_body(json.dumps(schema(UNIQUE)).encode())
