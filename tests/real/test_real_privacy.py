"""Real vLLM under requests that carry a mark in every field: no log quotes them, and no engine is blamed for them."""

import asyncio
import json
import re
import stat
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from cappella.engines import cache_salt
from cappella.engines.vllm import protocol
from support.real_deployment import Deployment, command_of, is_ready, wait_for

pytestmark = pytest.mark.vllm

MARK = "MARKmillerhiv"
MODEL = "soprano"
ENSEMBLE = "cappella/default"
Json = dict[str, Any]
HI = [{"role": "system", "content": f"{MARK}1"}, {"role": "user", "content": f"Say {MARK}2."}]


PLAIN: Json = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def schemas() -> Iterator[Json]:
    """One that a server takes, and some that it does not, each with marks wherever a text may stand."""
    good: Json = {"type": "object", "description": f"{MARK}3", "properties": {f"{MARK}4": {"enum": [f"{MARK}5"]}}}
    yield good
    yield {**good, "properties": {f"{MARK}4": {"type": "array", "uniqueItems": True, "title": f"{MARK}6"}}}
    yield {**good, "properties": {f"{MARK}4": {"type": "string", "format": f"{MARK}7"}}}
    yield {**good, "properties": {f"{MARK}4": {"type": "string", "pattern": f"(?={MARK}8)b"}}}
    yield {**good, "properties": {f"{MARK}4": {"$ref": f"#/$defs/{MARK}9"}}}
    yield {"type": f"{MARK}10"}


def forms() -> Iterator[Json]:
    for schema in schemas():
        yield {"response_format": {"type": "json_schema", "json_schema": {"name": f"{MARK}11", "schema": schema}}}
        yield {"structured_outputs": {"json": schema}}
        yield {"structured_outputs": {"json": json.dumps(schema)}}
    yield {"structured_outputs": {"choice": [f"{MARK}12", f"{MARK}13"]}}
    for regex in (f"{MARK}15[0-9]", f"(?={MARK}16)b", f"({MARK}17", rf"({MARK}18)\1"):
        yield {"structured_outputs": {"regex": regex}}
    for grammar in (f'start: "{MARK}19"', f"start: {MARK}20", f'root ::= "{MARK}21" x', f"start: /(?={MARK}22)b/"):
        yield {"structured_outputs": {"grammar": grammar}}
    yield {"structured_outputs": {"structural_tag": json.dumps({"type": f"{MARK}23", "format": {"type": "any_text"}})}}


def tools() -> Iterator[Json]:
    for schema in schemas():
        tool = {"name": "look_up", "description": f"{MARK}24", "parameters": schema}
        for choice in ("auto", "required", {"type": "function", "function": {"name": "look_up"}}):
            yield {"tools": [{"type": "function", "function": tool}], "tool_choice": choice}


def odd() -> Iterator[Json]:
    """Values that the engine, or the arithmetic below it, refuses."""
    yield {"top_k": 1 << 62}
    yield {"stop": [f"{MARK}25"], "user": f"{MARK}26"}
    yield {"chat_template_kwargs": {f"{MARK}27": f"{MARK}28", "self": 1}}
    yield {"logit_bias": {f"{MARK}29": 1}}
    yield {"temperature": f"{MARK}30"}
    yield {"messages": [{"role": f"{MARK}31", "content": f"{MARK}32"}]}
    yield {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:{MARK}33"}}]}]}
    yield {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": f"{MARK}34"}}]}]}


def requests() -> Iterator[tuple[str, Json]]:
    for model in (MODEL, ENSEMBLE):
        for stream in (False, True):
            common = {"model": model, "max_tokens": 8, "stream": stream}
            for more in (*forms(), *tools(), *odd()):
                yield "/v1/chat/completions", {**common, "messages": HI, **more}
            for schema in schemas():
                text = {"format": {"type": "json_schema", "name": f"{MARK}35", "schema": schema}}
                asked = {"model": model, "max_output_tokens": 8, "stream": stream, "input": f"Say {MARK}36."}
                yield "/v1/responses", {**asked, "text": text}
                called = {"type": "function", "name": "look_up", "description": f"{MARK}37", "parameters": schema}
                yield "/v1/responses", {**asked, "tools": [called], "tool_choice": "required"}
                offered = [{"name": "look_up", "description": f"{MARK}38", "input_schema": schema}]
                yield "/v1/messages", {**common, "messages": HI[1:], "tools": offered, "tool_choice": {"type": "any"}}
    yield from newer()
    for more in forms():
        yield "/v1/completions", {"model": MODEL, "max_tokens": 8, "prompt": f"{MARK}39", **more}


def newer() -> Iterator[tuple[str, Json]]:
    """The endpoints that answer in another API's form, count, or judge what comes from elsewhere."""
    for model in (MODEL, ENSEMBLE):
        common = {"model": model, "stream": False}
        for schema in schemas():
            yield "/api/chat", {**common, "messages": HI, "format": schema, "options": {"num_predict": 8}}
        yield (
            "/api/generate",
            {**common, "prompt": f"{MARK}40", "system": f"{MARK}41", "options": {"stop": [f"{MARK}42"]}},
        )
        yield "/v1/messages/count_tokens", {"model": model, "messages": HI[1:], "system": f"{MARK}43"}
        judged = {"answers": [f"{MARK}44", {"content": f"{MARK}45", "model": f"{MARK}46"}], "deadline_seconds": 60}
        yield "/v1/judge", {"model": model, "prompt": f"{MARK}47", **judged, "want": ["preference"]}
        yield "/v1/judge", {"model": model, "prompt": f"{MARK}48", **judged, "criteria": f"{MARK}49"}
        wrong = [{"name": f"{MARK}50", "points": 5, "description": f"{MARK}51"}]
        yield "/v1/judge", {"model": model, "prompt": f"{MARK}52", **judged, "rubric": wrong}
    yield "/tokenize", {"model": MODEL, "messages": HI}
    yield "/tokenize", {"model": MODEL, "prompt": [f"{MARK}53"]}
    yield "/detokenize", {"model": MODEL, "tokens": [f"{MARK}54"]}


def too_complex() -> Iterator[tuple[str, Json]]:
    """Different requests whose grammar vLLM gives up as it answers: it calls that an error of its own."""
    for first in range(0, 1600, 200):
        choices = [f"{MARK}14" * 250 + str(number) for number in range(first, first + 800)]
        yield "/v1/chat/completions", {"model": MODEL, "messages": HI, "structured_outputs": {"choice": choices}}


async def send(http: aiohttp.ClientSession, slots: asyncio.Semaphore, path: str, body: Json) -> tuple[int, str]:
    data, headers = BytesIO(json.dumps(body).encode()), {"Content-Type": "application/json"}
    async with slots, http.post(path, data=data, headers=headers) as reply:
        return reply.status, (await reply.read()).decode()


async def test_no_log_quotes_a_request_and_no_engine_is_ended_by_one(demo: Deployment) -> None:
    before = {name: engine["restarts"] for name, engine in demo.get("/ready")["engines"].items()}
    slots = asyncio.Semaphore(4)
    async with aiohttp.ClientSession(demo.url, timeout=aiohttp.ClientTimeout(total=600)) as http:
        replies = await asyncio.gather(*(send(http, slots, *request) for request in requests()))
        for request in too_complex():
            assert (await send(http, slots, *request))[0] in (400, 502)
        assert (await send(http, slots, "/v1/chat/completions", PLAIN))[0] == 200
    statuses = Counter(status for status, _ in replies)
    odd = [text for status, text in replies if status not in (200, 400)]
    # The demo's judge may give no judgement.
    assert all("judge_failed" in text for text in odd), (statuses, odd[:3])
    assert statuses[200] > 20
    assert statuses[400] > 100
    assert wait_for(lambda: is_ready(demo), 60)
    assert {name: engine["restarts"] for name, engine in demo.get("/ready")["engines"].items()} == before
    logs = [file for file in demo.log_dir.iterdir() if file.is_file()]
    quoted = {
        file.name: line for file in logs for line in file.read_text(errors="replace").splitlines() if MARK in line
    }
    assert not quoted
    engines = [file for file in logs if file.name != "gateway.log"]
    assert len(engines) > 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in engines} == {0o600}
    assert "Starting vLLM server" in (demo.log_dir / f"{MODEL}.log").read_text()


LONG = " ".join(f"word{number}" for number in range(60))
DIRECT: dict[str, Json] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": f"chat {LONG}"}]},
    "/v1/completions": {"prompt": f"completions {LONG}"},
    "/v1/responses": {"input": f"responses {LONG}"},
    "/v1/messages": {"messages": [{"role": "user", "content": f"messages {LONG}"}]},
}


def cached_tokens(reply: Json) -> int:
    usage = reply["usage"]
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return int(details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0)


@pytest.mark.parametrize("path", DIRECT)
async def test_a_salt_keeps_what_is_cached_from_all_with_another(demo: Deployment, path: str) -> None:
    command = next(each for each in map(command_of, demo.processes()) if f"--served-model-name {MODEL} " in each)
    socket = re.findall(r"--uds (\S+)", command)[0]
    length = {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 1}
    found = []
    async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(socket)) as http:
        for key in ("ann", "ann", "bob", "bob"):
            cache_salt.use(f"{key} {path}")
            salt = cache_salt.current()
            assert salt
            raw = json.dumps({"model": MODEL, **length, **DIRECT[path]}).encode()
            data = protocol.with_field(raw, "cache_salt", salt)
            async with http.post(path, data=data, headers={"Content-Type": "application/json"}) as reply:
                assert reply.status == 200, await reply.text()
                found.append(cached_tokens(await reply.json()) > 0)
    assert found == [False, True, False, True]
