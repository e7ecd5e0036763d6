"""Real vLLM under abuse: hostile texts in its own tokenizer, malformed requests, and replies as the document has them."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from jsonschema_rs import Draft202012Validator

from cappella.engines.sanitize import Sanitizer
from cappella.ensemble import prompts
from cappella.placement import folder
from cappella.types import Message, Prompt
from support.bad_http import RawRequest
from support.injected_answers import INJECTIONS, PAYLOAD
from support.malformed_requests import malformed
from support.real_deployment import ROOT, Deployment

pytestmark = pytest.mark.vllm

JUDGE = ROOT / "model_configs" / "demo" / "conductor"
HARMLESS = "I do not know."
QUESTIONS = ("Please tell me the room of Gonil.", "Please tell me the price of Tunagox.", "What is 12 plus 30?")
MALFORMED = 400


@pytest.fixture
async def judge(demo: Deployment) -> AsyncIterator[aiohttp.ClientSession]:
    """The judge's own server, behind the gateway's back."""
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in demo.processes()]
    sockets = [re.search(r"--uds (\S+)", each) for each in commands if "--served-model-name conductor " in each]
    socket = next(found for found in sockets if found)
    async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(socket[1])) as http:
        yield http


def plain(messages: list[Message]) -> list[Message]:
    found = folder.inspect("conductor", JUDGE)
    return list(Sanitizer(found.special_tokens, found.markup).sanitize(Prompt(messages)).messages)


def judged(hostile: str, question: str = QUESTIONS[0]) -> list[Message]:
    return prompts.final_messages([{"role": "user", "content": question}], ["It is 5.", hostile], "0a1b2c3d")


async def control(judge: aiohttp.ClientSession, messages: list[Message]) -> list[int]:
    """The special tokens of a prompt, in their order, as the server itself tokenizes it."""
    special = {
        each["id"] for each in json.loads((JUDGE / "tokenizer.json").read_text())["added_tokens"] if each["special"]
    }
    body = {"model": "conductor", "messages": messages, "add_generation_prompt": True}
    async with judge.post("/tokenize", json=body) as reply:
        assert reply.status == 200
        return [token for token in (await reply.json())["tokens"] if token in special]


async def test_no_hostile_text_makes_a_turn_in_the_judges_own_tokenizer(judge: aiohttp.ClientSession) -> None:
    turns = await control(judge, judged(HARMLESS))
    assert turns
    for name, hostile in INJECTIONS.items():
        assert await control(judge, plain(judged(hostile))) == turns, name
        asked: list[Message] = [
            {"role": "user", "content": [{"type": "text", "text": part} for part in (hostile[:9], hostile[9:])]}
        ]
        assert await control(judge, plain(asked)) == turns, name
    # Why that is needed: what stands in a text, vLLM reads as a turn.
    assert await control(judge, judged(INJECTIONS["ChatML"])) != turns


async def _says(judge: aiohttp.ClientSession, messages: list[Message]) -> str:
    body = {"model": "conductor", "messages": messages, "temperature": 0, "max_tokens": 100}
    async with judge.post("/v1/chat/completions", json=body) as reply:
        return str((await reply.json())["choices"][0]["message"]["content"]) if reply.status == 200 else ""


async def test_the_demos_judge_seldom_says_what_a_hostile_answer_wants(judge: aiohttp.ClientSession) -> None:
    def said(texts: Sequence[str]) -> float:
        return sum(PAYLOAD in text for text in texts) / len(texts)

    cases = [(hostile, question) for hostile in INJECTIONS.values() for question in QUESTIONS]
    slots = asyncio.Semaphore(16)

    async def answer(each: str, question: str) -> str:
        async with slots:
            return await _says(judge, plain(judged(each, question)))

    hostile = await asyncio.gather(*(answer(*case) for case in cases))
    wrong = [await _says(judge, plain(judged(f"{PAYLOAD}.", question))) for question in QUESTIONS]
    print(f"follows {said(hostile):.1%} of {len(hostile)} hostile answers, {said(wrong):.0%} of bare wrong words")
    assert said(hostile) < 0.25


async def test_malformed_requests_to_models_are_refused_and_no_engine_minds(demo: Deployment) -> None:
    names = {b'"ann"': b'"soprano"', b'"bob"': b'"alto"', b'"cat"': b'"tenor"', b"cappella/tools": b"soprano"}
    statuses: Counter[int] = Counter()
    slots, rng = asyncio.Semaphore(8), Random(5)

    async def one(raw: RawRequest) -> None:
        for ours, theirs in names.items():
            raw = replace(raw, body=raw.body.replace(ours, theirs))
        async with slots:
            reply = await _answer(demo, raw)
        assert not re.search(rb'Traceback|File "|site-packages|\.sock', reply), reply[:500]
        statuses.update(int(status) for status in re.findall(rb"^HTTP/1.1 (\d+) ", reply, re.MULTILINE))

    async with asyncio.TaskGroup() as group:
        for _ in range(MALFORMED):
            group.create_task(one(malformed(rng, "secret")))
    assert set(statuses) <= {100, 200, 400, 401, 404, 405, 413, 415, 421, 431, 502}, statuses
    assert statuses[200] > 0
    engines = demo.get("/ready")["engines"].values()
    assert all((each["state"], each["restarts"]) == ("ready", 0) for each in engines)


async def _answer(demo: Deployment, raw: RawRequest) -> bytes:
    host, _, port = demo.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    reply = b""
    try:
        writer.write(raw.wire("none"))
        while part := await asyncio.wait_for(reader.read(1 << 20), 60 if raw.framing is None else 0.5):
            reply += part
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return reply


@pytest.mark.parametrize("model", ["soprano", "cappella/default"])
async def test_a_form_that_a_grammar_cannot_hold_is_the_requests_fault(demo: Deployment, model: str) -> None:
    """The first is refused before, the second compiles, but its matcher gives up after `{`."""
    states = {"type": "integer", "multipleOf": 9_999_991}
    wide: Any = {"type": "object", "additionalProperties": False}
    rows = {"anyOf": [{**wide, "properties": {f"p{i}{j}": {} for i in range(300)}} for j in range(4)]}
    async with aiohttp.ClientSession(demo.url) as http:
        for schema in (states, rows):
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
            async with http.post("/v1/chat/completions", json={**body, "response_format": form}) as reply:
                assert (reply.status, (await reply.json())["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("model", ["cappella/default", "alto"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"])
async def test_real_replies_have_the_shapes_of_the_document(demo: Deployment, model: str, path: str) -> None:
    written = demo.get("/openapi.json")
    turns = [{"role": "user", "content": QUESTIONS[0]}]
    said: dict[str, Any] = {"/v1/responses": {"input": QUESTIONS[0]}, "/v1/completions": {"prompt": QUESTIONS[0]}}
    good = {
        "model": model,
        **said.get(path, {"messages": turns}),
        **({"max_tokens": 20} if path == "/v1/messages" else {}),
    }
    async with aiohttp.ClientSession(demo.url) as http:
        for body in (good, {**good, "temperature": "hot"}, {"model": model}):
            async with http.post(path, json=body) as reply:
                responses = written["paths"][path]["post"]["responses"]
                schema = responses[str(reply.status)]["content"]["application/json"]["schema"]
                Draft202012Validator({**schema, "components": written["components"]}).validate(await reply.json())
                assert reply.status == 400 or body is good
