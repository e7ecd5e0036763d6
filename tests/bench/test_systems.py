"""What is compared, over a real gateway and scripted engines."""

import aiohttp
import pytest

from cappella.bench.systems import BenchError, Ensemble, Naive, Sizes, Streamed, seated
from support.fake_engines import MEMBERS, FakeEngines
from support.scripted_engine import Script

SIZES = Sizes(panel=3, answer_tokens=8)


async def test_an_ensembles_reply_brings_its_trace(fake_engines: FakeEngines, gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        ensemble = Ensemble("ours", http, gateway, "default", MEMBERS, {"analysis": "off"})
        reply = await ensemble.ask("Hello?", SIZES)
    assert reply.trace
    assert reply.trace["fusion"]["timings"]["floor_ms"] > 0
    assert reply.tokens == 3
    assert 0 < reply.first_token_s <= reply.total_s
    for name in MEMBERS:
        body = fake_engines.servers[name].bodies[0]
        assert body["max_completion_tokens"] == SIZES.of_member(name, "Hello?")
    assert fake_engines.servers["judge"].bodies[-1]["max_completion_tokens"] == 8


async def test_the_naive_script_asks_the_same_of_the_same_models(fake_engines: FakeEngines, gateway: str) -> None:
    urls = dict.fromkeys((*MEMBERS, "judge"), gateway)
    async with Naive("script", urls, MEMBERS, "judge") as naive:
        reply = await naive.ask("Hello?", SIZES)
    assert (reply.tokens, reply.trace) == (3, None)
    assert fake_engines.judge_prompt().count("Hello there\n[end ") == 3
    for name in MEMBERS:
        assert fake_engines.servers[name].bodies[0]["max_completion_tokens"] == SIZES.of_member(name, "Hello?")


async def test_one_model_alone_is_asked_through_the_same_door(fake_engines: FakeEngines, gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        reply = await Streamed("one", http, gateway, "ann", {}).ask("Hello?", SIZES)
    assert (reply.tokens, reply.trace) == (2, None)


async def test_a_refusal_and_a_broken_stream_are_errors_and_no_replies(fake_engines: FakeEngines, gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(BenchError, match="404"):
            await Streamed("one", http, gateway, "nobody", {}).ask("Hello?", SIZES)
        fake_engines.let("judge", Script(("A", "B"), ending="break", pause_s=0.5))
        ensemble = Ensemble("ours", http, gateway, "default", MEMBERS, {"analysis": "off", "strategy": "synthesize"})
        fake_engines.let("ann", Script(ending="break"))
        fake_engines.let("bob", Script(ending="break"))
        with pytest.raises(BenchError, match="answered"):
            await ensemble.ask("Hello?", SIZES)


def test_a_panel_larger_than_the_members_seats_them_in_turn() -> None:
    assert seated(["a", "b", "c"], 5) == ["a", "b", "c", "a", "b"]
