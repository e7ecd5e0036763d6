"""Forms of answers are compiled before an engine sees them: what it would refuse never reaches it."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.engines import cache_salt
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


_numbers = count(1)


def new_form() -> dict[str, Any]:
    """One that nobody has compiled yet."""
    return {**GOOD, "properties": {"a": {"type": "integer"}, f"b{next(_numbers)}": {"type": "string"}}}


def is_known(form: dict[str, Any]) -> bool:
    return any(kind == "json" and json.loads(text) == form for kind, text in form_check._known)


def tools(how_many: int, *last: dict[str, Any]) -> dict[str, Any]:
    """New forms, one for each tool."""
    forms = [*(new_form() for _ in range(how_many)), *last]
    each = [{"type": "function", "function": {"name": f"f{i}", "parameters": form}} for i, form in enumerate(forms)]
    return {"tools": each, "tool_choice": "required"}


@pytest.fixture
def fresh_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    """One thread, whose process has yet to begin."""
    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(form_check, "_threads", threads)
        yield threads
        threads.submit(_end_process).result()


def _end_process() -> None:
    if process := getattr(form_check._own, "process", None):
        process.kill()
        form_check._end(process)


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


async def test_all_forms_of_a_request_share_a_limit_and_the_rest_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = new_form()
    # Less than none: a clock may tell no time for a small form.
    monkeypatch.setattr(form_check, "MAX_REQUEST_CPU_S", -1)
    for _ in range(2):
        with pytest.raises(EngineRejected, match=r"forms of the answer together take over 5 s"):
            await form_check.require_compilable(tools(3, last))
    assert not is_known(last)


async def test_a_known_form_waits_for_no_other(fresh_threads: ThreadPoolExecutor) -> None:
    form, gate = schema(new_form()), threading.Event()
    await form_check.require_compilable(form)
    fresh_threads.submit(gate.wait)
    try:
        async with asyncio.timeout(10):
            await form_check.require_compilable(form)
    finally:
        gate.set()


async def test_a_request_with_many_forms_lets_others_come_between(fresh_threads: ThreadPoolExecutor) -> None:
    many = asyncio.create_task(form_check.require_compilable(tools(100)))
    await asyncio.sleep(0)
    await form_check.require_compilable(schema(new_form()))
    assert not many.done()
    await many


async def test_many_requests_of_one_caller_let_others_come_between(fresh_threads: ThreadPoolExecutor) -> None:
    cache_salt.use("one")
    last, requests = new_form(), [tools(5) for _ in range(20)]
    many = [asyncio.create_task(form_check.require_compilable(fields)) for fields in [*requests, schema(last)]]
    await asyncio.sleep(0)
    cache_salt.use("another")
    await form_check.require_compilable(schema(new_form()))
    assert not any(task.done() for task in many)
    assert not is_known(last)
    await asyncio.gather(*many)


async def test_the_forms_of_a_request_that_is_given_up_are_compiled_no_more(fresh_threads: ThreadPoolExecutor) -> None:
    last = new_form()
    many = asyncio.create_task(form_check.require_compilable(tools(100, last)))
    await asyncio.sleep(0)
    many.cancel()
    await form_check.require_compilable(schema(new_form()))
    assert not is_known(last)


@pytest.mark.parametrize("ends", ["exit", "kill -TERM $$", "kill -INT $$"])
async def test_a_process_that_ends_by_no_limit_is_replaced_once(
    fresh_threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: str
) -> None:
    script = f'mkdir {tmp_path}/once 2>&- || exec "$@"; echo ready; read -r form; {ends}'
    monkeypatch.setattr(form_check, "_COMMAND", ["sh", "-c", script, "sh", *form_check._COMMAND])
    await form_check.require_compilable(schema(new_form()))
    assert (tmp_path / "once").exists()


async def test_a_form_that_ends_each_process_is_refused(
    fresh_threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_check, "_COMMAND", ["sh", "-c", "echo ready; read -r form; kill -SEGV $$"])
    with pytest.raises(EngineRejected, match="ends the process that compiles it"):
        await form_check.require_compilable(schema(new_form()))


CTRL_C = """
import asyncio, os, signal
from cappella.engines.vllm import form_check

async def main():
    process = await asyncio.to_thread(form_check._begun)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)
    await asyncio.sleep(0.2)
    print("lives" if process.poll() is None else "ended")
    process.kill()
    process.wait()

asyncio.run(main())
"""


def test_an_interrupt_of_the_server_ends_no_process_that_compiles() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(form_check.__file__).parents[3])}
    command = [sys.executable, "-c", CTRL_C]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, start_new_session=True)
    assert (done.stdout, done.returncode) == ("lives\n", 0), done.stderr
