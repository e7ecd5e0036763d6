"""A request that an engine refuses is the client's to change: 400 with the engine's words, however the engine says it."""

from typing import Any

import aiohttp
import pytest

from cappella.engines.circuit_breaker import MAX_BROKEN_REQUESTS
from support.fake_engines import FakeEngines, gateway_config, judge_script, serving
from support.scripted_engine import Json, Script

WORDS = "Grammar error: what only an engine knows"
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}


def refusal(code: int, kind: str = "BadRequestError", words: str = WORDS) -> Json:
    return {"error": {"message": words, "type": kind, "param": None, "code": code}}


REFUSALS = [
    Script(refuse=(400, refusal(400))),
    Script(refuse=(500, refusal(500))),
    Script((), ending="refused", refusal=refusal(400)),
    Script((), ending="refused", refusal=refusal(500, "VLLMValidationError")),
]
NAMES = ["status", "status 500", "stream", "stream 500"]
# What vLLM says where a grammar is too much for it, in the middle of an answer or before.
GIVEN_UP = refusal(500, "InternalServerError", "Internal server error")


async def ask(url: str, **more: Any) -> tuple[int, Any]:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Say hello."}], **more}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return reply.status, await reply.json(content_type=None)


@pytest.mark.parametrize("script", REFUSALS, ids=NAMES)
@pytest.mark.parametrize("who", ["panel", "judge"])
async def test_an_ensemble_whose_engines_refuse_the_format_answers_400_in_their_words(
    gateway: str, fake_engines: FakeEngines, who: str, script: Script
) -> None:
    for name in ("ann", "bob", "cat") if who == "panel" else ("judge",):
        fake_engines.let(name, judge_script(script) if name == "judge" else script)
    status, reply = await ask(gateway, response_format=FORMAT)
    assert (status, reply["error"]["type"], reply["error"]["code"]) == (400, "invalid_request_error", "invalid_value")
    assert WORDS in reply["error"]["message"]


async def test_a_member_that_is_cut_since_another_was_refused_makes_it_no_fault_of_the_server(
    fake_engines: FakeEngines,
) -> None:
    """There would be no quorum any more; it is so with a prompt that is too long for all models."""
    fake_engines.let("ann", Script(refuse=(400, refusal(400))))
    fake_engines.let("bob", Script(ending="held"))
    async with serving(fake_engines, gateway_config(panel=["ann", "bob"], quorum=2)) as url:
        status, reply = await ask(url)
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert WORDS in reply["error"]["message"]


@pytest.mark.parametrize("script", REFUSALS, ids=NAMES)
@pytest.mark.parametrize("who", ["panel", "judge"])
async def test_an_ensemble_whose_engines_refuse_a_forced_call_answers_400_and_stays_well(
    gateway: str, fake_engines: FakeEngines, who: str, script: Script
) -> None:
    refusing = ("ann", "bob", "cat") if who == "panel" else ("judge",)
    for name in refusing:
        fake_engines.let(name, judge_script(script) if name == "judge" else script)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for number in range(2 * MAX_BROKEN_REQUESTS):
        turn = {"role": "user", "content": f"Say {number}."}
        status, reply = await ask(
            gateway, model="cappella/tools", messages=[turn], tools=[tool], tool_choice="required"
        )
        assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
        assert WORDS in reply["error"]["message"]
    assert not any(fake_engines.engines[name].circuit_breaker.is_open for name in refusing)


GIVING_UP = {"status": Script(refuse=(500, GIVEN_UP)), "stream": Script((), ending="refused", refusal=GIVEN_UP)}


@pytest.mark.parametrize(("called", "how"), [("ann", "status"), ("judge", "status"), ("judge", "stream")])
async def test_a_form_that_an_engine_gives_up_on_is_the_requests_fault(
    gateway: str, fake_engines: FakeEngines, called: str, how: str
) -> None:
    script = GIVING_UP[how]
    fake_engines.let(called, judge_script(script) if called == "judge" else script)
    model = "cappella/default" if called == "judge" else called
    for number in range(2 * MAX_BROKEN_REQUESTS):
        turn = {"role": "user", "content": f"Say {number}."}
        status, reply = await ask(gateway, model=model, messages=[turn], response_format=FORMAT)
        assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
        assert "the form of this answer" in reply["error"]["message"]
    assert not fake_engines.engines[called].circuit_breaker.is_open


async def test_an_engine_that_gives_up_without_a_form_is_broken(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", GIVING_UP["status"])
    assert (await ask(gateway, model="ann"))[0] == 502


async def test_a_judge_that_fails_by_itself_still_falls_back(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(refuse=(500, refusal(500, "InternalServerError")))))
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script(("[1]",)))
    status, reply = await ask(gateway, response_format=FORMAT)
    assert (status, reply["fusion"]["status"]) == (200, "degraded")


@pytest.mark.parametrize("status_code", [400, 500])
async def test_a_model_that_refuses_a_direct_call_answers_400_in_its_words(
    gateway: str, fake_engines: FakeEngines, status_code: int
) -> None:
    fake_engines.let("ann", Script(refuse=(status_code, refusal(status_code))))
    status, reply = await ask(gateway, model="ann", response_format=FORMAT)
    assert (status, reply["error"]["message"]) == (400, WORDS)


async def test_a_server_that_is_busy_is_not_the_fault_of_the_request(gateway: str, fake_engines: FakeEngines) -> None:
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script(refuse=(429, refusal(429, "rate_limit_error"))))
    status, reply = await ask(gateway, response_format=FORMAT)
    assert (status, reply["error"]["code"]) == (502, "insufficient_quorum")


@pytest.mark.parametrize(
    "slip",
    [
        "safe_apply_chat_template() got multiple values for argument 'self'",
        "'NoneType' object is not iterable",
        "vllm.entrypoints.openai: no such thing",
    ],
)
async def test_words_about_the_servers_own_code_do_not_reach_clients(
    gateway: str, fake_engines: FakeEngines, slip: str
) -> None:
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script(refuse=(400, refusal(400, words=slip))))
    for more in ({"model": "ann"}, {"response_format": FORMAT}):
        status, reply = await ask(gateway, **more)
        assert (status, slip in str(reply)) == (400, False)
        assert "cannot read a field" in reply["error"]["message"]
