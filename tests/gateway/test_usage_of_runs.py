"""The `usage` of an ensemble's reply: the conversation and the answer. What the run cost stands in `fusion.usage`."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.telemetry import trace
from cappella.types import Capabilities, Sampling
from support.fake_engines import MEMBERS, FakeEngines, eventually, gateway_config, last_message, serving
from support.scripted_engine import Json, Script
from support.small_tools import adding

CONVERSATION_TOKENS = 7
USER = [{"role": "user", "content": "Say hello."}]
LONG = tuple(f"word{number} " + "and some more " * 7 for number in range(30))
SLOW_S = 0.01
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(autouse=True)
def judge_counts(fake_engines: FakeEngines) -> None:
    """The judge counts 7 tokens in any conversation without our answers; a prompt of a call has 10 (see `tokens`)."""
    judge = fake_engines.servers["judge"]
    judge.tokens_of = lambda body: 700 if "[answer " in last_message(body) else CONVERSATION_TOKENS


async def reply_to(url: str, path: str = "/v1/chat/completions", **more: Any) -> Json:
    body = {"model": "cappella/default", "messages": USER, **more}
    async with aiohttp.ClientSession() as http, http.post(f"{url}{path}", json=body) as reply:
        assert reply.status == 200
        return dict(await reply.json())


@pytest.mark.parametrize("seats", [2, 3, 6])
async def test_prompt_tokens_do_not_depend_on_the_number_of_members(
    gateway: str, fake_engines: FakeEngines, seats: int
) -> None:
    reply = await reply_to(gateway, fusion={"analysis_models": [MEMBERS[seat % 3] for seat in range(seats)]})
    usage, cost = reply["usage"], reply["fusion"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert len(usage["fusion_details"]) == seats + 2
    assert cost["prompt_tokens"] == 10 * (seats + 2)
    assert cost["completion_tokens"] == sum(each["completion_tokens"] for each in usage["fusion_details"])
    assert cost["total_tokens"] == cost["prompt_tokens"] + cost["completion_tokens"]
    assert fake_engines.servers["judge"].counted == 1


async def test_every_form_of_a_reply_has_the_same_counts(gateway: str) -> None:
    response = (await reply_to(gateway, "/v1/responses", input="Hi", messages=None))["usage"]
    assert (response["input_tokens"], response["output_tokens"], response["total_tokens"]) == (7, 3, 10)
    message = (await reply_to(gateway, "/v1/messages", max_tokens=99))["usage"]
    assert message["input_tokens"] + message["cache_read_input_tokens"] == 7
    assert message["output_tokens"] == 3
    ollama = await reply_to(gateway, "/api/chat", stream=False)
    assert (ollama["prompt_eval_count"], ollama["eval_count"]) == (7, 3)


async def test_no_more_is_cached_than_the_conversation_has(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.servers["judge"].tokens_of = lambda _: 2
    assert (await reply_to(gateway))["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


async def test_a_chosen_answer_counts_as_its_member_wrote_it(gateway: str) -> None:
    usage = (await reply_to(gateway, fusion={"strategy": "vote"}))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 2)


async def test_an_early_prefill_is_counted_once(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(LONG, pause_s=SLOW_S if name == "cat" else 0.0))
    reply = await reply_to(gateway, fusion={"analysis": "off", "answer_order": "arrival"})
    details, cost = reply["usage"]["fusion_details"], reply["fusion"]["usage"]
    assert "prefill" in {each["role"] for each in details}
    others = [each for each in details if each["role"] != "prefill"]
    assert cost["prompt_tokens"] == sum(each["prompt_tokens"] for each in others) == 40
    uncached = sum(each["prompt_tokens"] - each["cached_tokens"] for each in details)
    assert cost["prompt_tokens_details"]["cached_tokens"] == max(0, 40 - uncached)
    assert reply["usage"]["prompt_tokens"] == 7


async def test_an_early_prefill_that_no_judge_read_again_is_counted(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(LONG, pause_s=SLOW_S if name == "cat" else 0.0))
    reply = await reply_to(gateway, fusion={"analysis": "off", "answer_order": "arrival", "early_exit": "equal"})
    roles = [each["role"] for each in reply["usage"]["fusion_details"]]
    assert set(roles) == {"panel", "prefill"}
    assert reply["fusion"]["usage"]["prompt_tokens"] == 40


@pytest.mark.parametrize("trouble", ["slow", "broken", "asleep"])
async def test_without_the_judges_count_a_members_prompt_counts(
    gateway: str, fake_engines: FakeEngines, trouble: str
) -> None:
    """The largest, or that of the judge's own model; the run neither waits nor fails, and wakes nobody for it."""
    judge = fake_engines.servers["judge"]
    judge.holds_counts = trouble == "slow"
    judge.tokens_of = fail if trouble == "broken" else judge.tokens_of
    fake_engines.engines["judge"].status.state = "asleep" if trouble == "asleep" else "ready"
    fake_engines.servers["bob"].tokens = 25
    reply = await reply_to(gateway)
    assert (reply["fusion"]["status"], reply["usage"]["prompt_tokens"]) == ("ok", 25)
    judge.tokens = 12
    reply = await reply_to(gateway, fusion={"analysis_models": ["ann", "bob", "judge"]})
    assert (reply["fusion"]["status"], reply["usage"]["prompt_tokens"]) == ("ok", 12)
    assert judge.counted == (0 if trouble == "asleep" else 2)


def fail(_: Json) -> int:
    raise web.HTTPInternalServerError


async def test_a_later_rounds_prompts_do_not_count(gateway: str, fake_engines: FakeEngines) -> None:
    judge, ann = fake_engines.servers["judge"], fake_engines.servers["ann"]
    judge.tokens_of = fail

    def grows(body: Json) -> Script:
        ann.tokens = 90 if "[answer " in last_message(body) else 11
        return Script()

    fake_engines.let("ann", grows)
    reply = await reply_to(gateway, fusion={"layers": 2})
    assert reply["usage"]["prompt_tokens"] == 11


async def test_what_tools_gave_to_a_member_does_not_count(gateway: str, fake_engines: FakeEngines) -> None:
    judge, ann = fake_engines.servers["judge"], fake_engines.servers["ann"]
    judge.tokens_of = fail
    fake_engines.tool_servers["box"] = adding()

    def looks_up(body: Json) -> Script:
        has_results = body["messages"][-1]["role"] == "tool"
        ann.tokens = 90 if has_results else 11
        return Script() if has_results else Script((), calls=(("add", '{"q": "2+3"}'),), finish_reason="tool_calls")

    fake_engines.let("ann", looks_up)
    tools = SeatTools(("box",))
    panel = tuple(Seat(name, name, Sampling(), tools=tools if name == "ann" else SeatTools()) for name in MEMBERS)
    run = await fake_engines.run(panel=panel, early_prefill=False)
    assert ann.bodies[-1]["messages"][-1]["role"] == "tool"
    assert run.prompt_tokens == 11


async def test_images_are_counted_as_a_member_read_them(fake_engines: FakeEngines) -> None:
    """A tokenizer does not see them."""
    for engine in fake_engines.engines.values():
        engine.capabilities = Capabilities(images=True)
    config = gateway_config()
    models = {name: model.model_copy(update={"images": True}) for name, model in config.models.items()}
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    async with serving(fake_engines, config.model_copy(update={"models": models})) as url:
        reply = await reply_to(url, messages=[{"role": "user", "content": content}])
    assert (reply["usage"]["prompt_tokens"], fake_engines.servers["judge"].counted) == (10, 0)


async def test_a_bypassed_run_has_the_counts_of_its_one_call(fake_engines: FakeEngines) -> None:
    fake_engines.servers["ann"].tokens = 13
    async with serving(fake_engines, gateway_config(gate={"mode": "judge", "model": "ann"})) as url:
        fake_engines.let("judge", Script(("no",)))
        reply = await reply_to(url)
    assert reply["fusion"]["status"] == "bypassed"
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (13, 2)
    assert reply["fusion"]["usage"]["prompt_tokens"] == 23
    assert fake_engines.servers["judge"].counted == 0


async def test_a_count_ends_with_its_run(gateway: str, fake_engines: FakeEngines) -> None:
    judge = fake_engines.servers["judge"]
    judge.holds_counts = True
    fake_engines.let("ann", Script(ending="held"))
    asking = asyncio.ensure_future(reply_to(gateway))
    assert await eventually(lambda: fake_engines.engines["judge"].in_flight == 1)
    asking.cancel()
    assert await eventually(lambda: fake_engines.engines["judge"].in_flight == 0)
    judge.released.set()


ADDS = Script((), calls=(("add", '{"q": "2+3"}'),), finish_reason="tool_calls")


def slow_last(fake_engines: FakeEngines, *, looks_up: bool = False) -> None:
    """Members whose answers are alike; the last is slow enough for early prefills. Ann calls a tool where she looks up."""
    for name in MEMBERS:
        fake_engines.let(name, Script(LONG, pause_s=SLOW_S if name == "cat" else 0.0))
    if looks_up:
        fake_engines.let("ann", lambda body: Script(LONG) if body["messages"][-1]["role"] == "tool" else ADDS)


async def test_an_early_prefill_that_the_judge_read_again_as_it_looked_up_is_counted_once(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    slow_last(fake_engines)
    refused = Script(refuse=(400, {"error": {"message": "no"}}))
    fake_engines.let("judge", lambda body: refused if "Now write" in last_message(body) else Script(("ready",)))
    run = await fake_engines.run(
        judge_tools=SeatTools(("box",)), analysis="off", answer_order="arrival", grace_s="never"
    )
    assert [call.usage.prompt_tokens for call in run.calls if call.seat == "judge" and call.role != "prefill"] == [
        10,
        0,
    ]
    assert "prefill" in {call.role for call in run.calls}
    assert trace.cost(run.calls)["prompt_tokens"] == 40


async def test_what_members_look_up_is_no_reading_of_an_early_prefill(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    slow_last(fake_engines, looks_up=True)
    tools = SeatTools(("box",))
    panel = tuple(Seat(name, name, Sampling(), tools=tools if name == "ann" else SeatTools()) for name in MEMBERS)
    run = await fake_engines.run(
        panel=panel, early_exit="equal", analysis="off", answer_order="arrival", grace_s="never"
    )
    assert {call.role for call in run.calls} == {"lookup", "panel", "prefill"}
    assert trace.cost(run.calls)["prompt_tokens"] == 50
