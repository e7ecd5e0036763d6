"""A model that thinks until its tokens end: no reply is empty without a word, of one model and of a panel."""

import json
from typing import Any

import aiohttp
import pytest

from cappella.config.options import Gate
from cappella.types import Capabilities
from support.fake_engines import MEMBERS, FakeEngines, judge_script
from support.scripted_engine import Script

ONLY_THOUGHT = Script((), reasoning="Let me see", finish_reason="length")
WARNING = ("x-cappella-warning", "only_thinking")


async def ask(url: str, model: str, **more: Any) -> tuple[aiohttp.ClientResponse, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, **more}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return reply, await reply.text()


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("more", [{}, {"thinking_token_budget": 50}])
async def test_a_whole_reply_has_its_thoughts_and_a_warning(
    gateway: str, fake_engines: FakeEngines, more: dict[str, Any]
) -> None:
    fake_engines.let("ann", ONLY_THOUGHT)
    reply, text = await ask(gateway, "ann", **more)
    body = json.loads(text)
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["message"]["reasoning"]) == (None, "Let me see")
    assert choice["finish_reason"] == "length"
    assert (reply.status, body["warning"]["code"], reply.headers.get(WARNING[0])) == (200, WARNING[1], WARNING[1])


async def test_the_chunk_that_ends_a_stream_has_the_warning(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", ONLY_THOUGHT)
    _, text = await ask(gateway, "ann", stream=True)
    warned = [event for event in events(text) if "warning" in event]
    assert [each["choices"][0]["finish_reason"] for each in warned] == ["length"]
    assert warned[0]["warning"]["code"] == WARNING[1]
    assert "Let me see" in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        Script(reasoning="Let me see"),
        Script(reasoning="Let me see", finish_reason="length"),
        Script(("say",), reasoning='{"content":""}', finish_reason="length"),
        Script((), calls=(("f", "{}"),), reasoning="I call", finish_reason="length"),
    ],
)
async def test_a_reply_with_an_answer_has_no_warning(
    gateway: str, fake_engines: FakeEngines, script: Script, stream: bool
) -> None:
    if script.calls and not stream:
        return
    fake_engines.let("ann", script)
    reply, text = await ask(gateway, "ann", stream=stream)
    assert (reply.status, WARNING[0] in reply.headers, '"warning"' in text) == (200, False, False)


async def test_a_panel_that_only_thinks_is_an_error_that_says_so(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, ONLY_THOUGHT)
    reply, text = await ask(gateway, "cappella/default")
    error = json.loads(text)["error"]
    assert (reply.status, error["code"]) == (502, "insufficient_quorum")
    assert {(each["reason"], "thought" in each["error"]) for each in error["failed_models"]} == {("empty_answer", True)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_judge_that_only_thinks_leaves_a_members_answer(
    gateway: str, fake_engines: FakeEngines, stream: bool
) -> None:
    fake_engines.let("judge", ONLY_THOUGHT)
    reply, text = await ask(gateway, "cappella/default", stream=stream)
    told = events(text) if stream else [json.loads(text)]
    said = "".join((c["delta"] if stream else c["message"]).get("content") or "" for e in told for c in e["choices"])
    fusion = next(each["fusion"] for each in told if "fusion" in each)
    assert (reply.status, said.strip(), fusion["status"], fusion["failure_reason"]) == (
        200, "Hello there", "degraded", "empty_answer"
    )  # fmt: skip


async def test_a_judge_that_only_thinks_about_the_analysis_still_writes(
    gateway: str, fake_engines: FakeEngines
) -> None:
    fake_engines.let("judge", judge_script(analysis=ONLY_THOUGHT))
    _, text = await ask(gateway, "cappella/default")
    body = json.loads(text)
    assert body["choices"][0]["message"]["content"] == "The final answer"
    assert (body["fusion"]["status"], body["fusion"]["analysis"]) == ("degraded", None)


async def test_a_gates_model_that_only_thinks_leaves_the_question_to_the_panel(fake_engines: FakeEngines) -> None:
    fake_engines.engines["ann"].capabilities = Capabilities(reasoning=True)
    replies = iter([ONLY_THOUGHT])
    fake_engines.let("ann", lambda body: next(replies, Script(("Hello there",))))
    run = await fake_engines.run("Hi", gate=Gate("rules", "ann", 4))
    assert (run.status, run.content) == ("ok", "The final answer")
    assert run.gate
    assert not run.gate.bypass
