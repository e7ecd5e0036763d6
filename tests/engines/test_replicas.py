"""One model on several servers: which one a call goes to, and what becomes of it when that one fails."""

import asyncio
import json
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cappella.engines import cache_salt
from cappella.engines.replicas.prefixes import BLOCK_BYTES, Prefixes, blocks_of, blocks_of_body
from cappella.engines.replicas.replica import SUSPECT_S, Calls, Replica
from cappella.engines.replicas.routing import Router
from cappella.errors import EngineBroke, EngineNotReady, EngineRejected
from cappella.types import Prompt, Sampling
from support.fake_engines import eventually
from support.replica_house import SEQUENCES, House
from support.scripted_engine import Script, ScriptedEngine

HELD = Script(("Hello",), ending="held")
DIES_SILENT = Script((), ending="break")
DIES_SPEAKING = Script(("Hel",), ending="break")


async def ask(house: House, text: str = "Hi") -> str:
    prompt = Prompt([{"role": "user", "content": text}])
    return "".join([chunk.content async for chunk in house.big.chat(prompt, Sampling())])


async def forwarded(house: House, **more: Any) -> bytes:
    body = json.dumps({"model": "big", "messages": [{"role": "user", "content": "Hi"}], **more}).encode()
    async with house.big.forward("/v1/chat/completions", body) as reply:
        return b"".join([piece async for piece in reply.body])


async def test_calls_at_once_are_spread_evenly(house: House) -> None:
    house.let(HELD)
    calls = [asyncio.create_task(ask(house)) for _ in range(12)]
    assert await eventually(lambda: house.running() == [4, 4, 4])
    assert house.big.in_flight == 12
    for server in house.servers.values():
        server.released.set()
    assert await asyncio.gather(*calls) == ["Hello"] * 12
    assert house.big.in_flight == 0


async def test_calls_one_after_another_take_turns(house: House) -> None:
    for _ in range(6):
        await ask(house)
    assert set(house.asked().values()) == {2}


async def test_a_call_of_a_replica_that_dies_before_its_first_token_is_repeated_elsewhere(house: House) -> None:
    house.let(DIES_SILENT, "big-1")
    assert [await ask(house) for _ in range(3)] == ["Hello there"] * 3
    # It is not tried again so soon.
    assert house.asked()["big-1"] == 1


async def test_a_call_that_has_given_a_token_fails_with_its_replica(house: House) -> None:
    house.let(DIES_SPEAKING)
    with pytest.raises(EngineBroke):
        await ask(house)
    assert sum(house.asked().values()) == 1


async def test_a_call_that_breaks_every_replica_which_gets_it_is_given_up(tmp_path: Path, house: House) -> None:
    server = ScriptedEngine("four", lambda _: Script())
    house.big.add(Replica("big-4", await server.start(tmp_path), SEQUENCES))
    house.let(DIES_SILENT)
    with pytest.raises(EngineBroke):
        await ask(house)
    assert sum(house.asked().values()) + len(server.bodies) == 3
    await server.stop()


async def test_a_call_is_tried_on_every_replica_if_those_before_do_not_even_listen(house: House) -> None:
    for name in ("big-1", "big-2"):
        await house.servers[name].close()
    assert [await ask(house) for _ in range(4)] == ["Hello there"] * 4
    await house.servers["big-3"].close()
    with pytest.raises(EngineBroke, match="no connection"):
        await ask(house)


async def test_a_refusal_of_the_request_is_not_repeated(house: House) -> None:
    house.let(Script(refuse=(400, {"error": {"message": "No", "type": "BadRequestError"}})))
    with pytest.raises(EngineRejected, match="No"):
        await ask(house)
    assert sum(house.asked().values()) == 1


async def test_a_server_that_is_too_busy_is_no_end_of_the_call(house: House) -> None:
    house.let(Script(refuse=(429, {"error": {"message": "busy", "type": "rate_limit"}})), "big-1", "big-2")
    assert await ask(house) == "Hello there"


@pytest.mark.parametrize("state", ["loading", "unhealthy", "restarting", "failed", "stopped"])
async def test_a_replica_that_is_not_well_gets_no_calls(house: House, state: str) -> None:
    house.state("big-2", state)
    for _ in range(6):
        await ask(house)
    assert house.asked() == {"big-1": 3, "big-2": 0, "big-3": 3}
    assert (house.big.status.state, house.big.status.stage) == ("ready", "2 of 3 replicas ready")


async def test_a_sleeping_replica_is_called_when_the_others_are_full(house: House) -> None:
    house.let(HELD)
    house.state("big-1", "asleep")
    calls = [asyncio.create_task(ask(house)) for _ in range(2 * SEQUENCES)]
    assert await eventually(lambda: house.running() == [0, SEQUENCES, SEQUENCES])
    router, replicas = Router(), house.big.replicas
    chosen = router.choose(replicas)
    assert chosen is not None
    assert chosen.name == "big-1"
    for server in house.servers.values():
        server.released.set()
    await asyncio.gather(*calls)


async def test_a_run_wakes_one_of_the_sleepers_and_its_calls_wait_for_that_one(house: House) -> None:
    woken = house.sleep(*house.servers)
    with house.big.keep_awake(), house.big.keep_awake():
        calls = [asyncio.create_task(ask(house)) for _ in range(3)]
        assert await eventually(lambda: house.big.in_flight == 3)
        assert woken == ["big-1"]
        house.wakes.set()
        assert await asyncio.gather(*calls) == ["Hello there"] * 3
    assert (woken, house.asked()) == (["big-1"], {"big-1": 3, "big-2": 0, "big-3": 0})


async def test_a_run_wakes_nobody_beside_one_that_is_ready(house: House) -> None:
    woken = house.sleep("big-1", "big-2")
    with house.big.keep_awake():
        assert await ask(house) == "Hello there"
    assert (woken, house.asked()["big-3"]) == ([], 1)


async def test_as_many_sleepers_wake_as_the_calls_need(house: House) -> None:
    woken = house.sleep(*house.servers)
    calls = [asyncio.create_task(ask(house)) for _ in range(SEQUENCES)]
    assert await eventually(lambda: house.big.in_flight == SEQUENCES)
    assert len(woken) == 1
    calls += [asyncio.create_task(ask(house)) for _ in range(SEQUENCES)]
    assert await eventually(lambda: house.big.in_flight == 2 * SEQUENCES)
    assert len(set(woken)) == len(woken) == 2
    house.wakes.set()
    assert await asyncio.gather(*calls) == ["Hello there"] * (2 * SEQUENCES)


async def test_a_run_keeps_no_replica_awake_where_none_accepts_calls(house: House) -> None:
    for name in house.servers:
        house.state(name, "failed")
    with house.big.keep_awake():
        assert house.big.in_flight == 0


async def test_a_model_takes_as_many_calls_as_the_replicas_that_accept_some(house: House) -> None:
    assert house.big.max_calls == 3 * SEQUENCES
    house.state("big-1", "unhealthy")
    house.state("big-2", "asleep")
    assert house.big.max_calls == 2 * SEQUENCES
    for name in house.servers:
        house.state(name, "failed")
    # Calls are told that the model is down, not that it is full.
    assert house.big.max_calls == 3 * SEQUENCES


async def test_without_a_replica_that_accepts_calls_the_model_is_down(house: House) -> None:
    for name in house.servers:
        house.state(name, "unhealthy")
        house.servers[name].engine.status.reason = "no token"
    assert not house.big.status.accepts_requests
    assert house.big.status.reason == "big-1: no token; big-2: no token; big-3: no token"
    with pytest.raises(EngineNotReady, match="big is unhealthy"):
        await ask(house)
    with pytest.raises(EngineNotReady):
        await forwarded(house)
    with pytest.raises(EngineNotReady):
        await house.big.count_tokens(Prompt([{"role": "user", "content": "Hi"}]))
    assert not any(house.asked().values())


async def test_a_closed_call_is_aborted_at_the_replica_that_runs_it(house: House) -> None:
    house.let(HELD)
    async with aclosing(house.big.chat(Prompt([{"role": "user", "content": "Hi"}]), Sampling())) as chunks:
        while not (await anext(chunks)).content:
            pass
        assert house.running() == [1, 0, 0]
    assert await eventually(lambda: house.servers["big-1"].aborted == 1)
    assert house.big.in_flight == 0


async def test_a_removed_replica_finishes_its_calls_and_gets_no_more(house: House) -> None:
    house.let(HELD)
    held = asyncio.create_task(ask(house))
    assert await eventually(lambda: house.running() == [1, 0, 0])
    removal = asyncio.create_task(house.big.remove("big-1", within_s=60))
    house.let(Script(), "big-2", "big-3")
    for _ in range(3):
        await ask(house)
    assert not removal.done()
    house.servers["big-1"].released.set()
    await removal
    assert await held == "Hello"
    assert house.asked()["big-1"] == 1
    assert [each.name for each in house.big.replicas] == ["big-2", "big-3"]


async def test_a_replica_is_removed_after_a_time_whatever_its_calls_do(house: House) -> None:
    house.let(HELD)
    held = asyncio.create_task(ask(house))
    assert await eventually(lambda: house.running() == [1, 0, 0])
    await house.big.remove("big-1", within_s=0)
    assert not held.done()
    house.servers["big-1"].released.set()
    await held


async def test_an_added_replica_is_called(house: House, tmp_path: Path) -> None:
    server = ScriptedEngine("four", lambda _: Script())
    house.big.add(Replica("big-4", await server.start(tmp_path), SEQUENCES))
    for _ in range(8):
        await ask(house)
    assert len(server.bodies) == 2
    await server.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_forwarded_call_is_repeated_until_its_first_byte_of_an_answer(house: House, stream: bool) -> None:
    await house.servers["big-1"].close()
    assert b"Hello" in await forwarded(house, stream=stream)
    house.state("big-1", "failed")
    house.let(Script(refuse=(503, {"error": {"message": "draining"}})), "big-2")
    assert b"Hello" in await forwarded(house, stream=stream)
    assert b"Hello" in await forwarded(house, stream=stream)


async def test_a_forwarded_stream_that_has_begun_fails_with_its_replica(house: House) -> None:
    house.let(DIES_SPEAKING)
    with pytest.raises(EngineBroke):
        await forwarded(house, stream=True)
    assert sum(house.asked().values()) == 1


async def test_a_forwarded_stream_whose_first_event_is_an_error_is_repeated(house: House) -> None:
    house.let(Script((), ending="error"), "big-1")
    replies = [await forwarded(house, stream=True) for _ in range(3)]
    assert all(b"Hello" in reply and b"out of memory" not in reply for reply in replies)
    assert house.asked()["big-1"] == 1


async def test_a_forwarded_stream_that_dies_before_its_first_output_is_repeated(house: House) -> None:
    house.let(DIES_SILENT, "big-1")
    replies = [await forwarded(house, stream=True) for _ in range(3)]
    assert all(b"Hello" in reply and reply.count(b'"role"') == 1 for reply in replies)


async def test_a_forwarded_call_that_is_refused_for_now_is_repeated_while_others_are_left(house: House) -> None:
    busy = Script(refuse=(429, {"error": {"message": "busy", "type": "rate_limit"}}))
    house.let(busy, "big-1", "big-2")
    assert b"Hello" in await forwarded(house)
    house.let(busy)
    assert b"busy" in await forwarded(house)


async def test_tokens_are_counted_by_a_replica_that_answers(house: House) -> None:
    await house.servers["big-1"].close()
    counts = [await house.big.count_tokens(Prompt([{"role": "user", "content": "Hi"}])) for _ in range(3)]
    assert {count.tokens for count in counts} == {10}


LONG = "x" * 10 * BLOCK_BYTES


async def test_a_conversation_goes_where_its_beginning_was_read(house: House) -> None:
    names = ("one", "two", "three", "four", "five")
    for turn in range(4):
        for name in names:
            await ask(house, f"{name} {LONG}{'and more' * turn}")
    for name in names:
        served = [each for each, server in house.servers.items() if f'"{name} ' in json.dumps(server.bodies)]
        assert len(served) == 1, name


async def test_a_busy_reader_is_passed_over_for_one_that_is_much_less_busy(house: House) -> None:
    house.let(HELD)
    calls = [asyncio.create_task(ask(house, LONG)) for _ in range(12)]
    # The reader has at most one call more than the others.
    assert await eventually(lambda: sum(house.running()) == 12)
    assert max(house.running()) - min(house.running()) <= 2
    for server in house.servers.values():
        server.released.set()
    await asyncio.gather(*calls)


async def test_a_short_beginning_that_all_share_draws_no_calls(house: House) -> None:
    shared = "s" * 2 * BLOCK_BYTES
    for number in range(6):
        await ask(house, f"{shared}{number}{LONG}")
    assert set(house.asked().values()) == {2}


async def test_blocks_depend_on_the_salt_and_on_all_that_comes_before() -> None:
    def prompt(text: str) -> Prompt:
        return Prompt([{"role": "user", "content": text}])

    first, longer = await blocks_of(prompt(LONG)), await blocks_of(prompt(LONG + LONG))
    assert longer[: len(first)] == list(first)
    assert not set(first) & set(await blocks_of(prompt("y" + LONG)))
    body = json.dumps({"temperature": 1, "messages": [{"role": "user", "content": LONG}]}).encode()
    assert await blocks_of_body(body) == first
    assert await blocks_of(prompt("short")) == []

    async def salted() -> Any:
        cache_salt.use("another key")
        return await blocks_of(prompt(LONG))

    assert not set(first) & set(await asyncio.create_task(salted()))


async def test_a_huge_prompt_does_not_displace_all_others() -> None:
    prefixes = Prefixes()
    small, huge = [await blocks_of(Prompt([{"role": "user", "content": text}])) for text in (LONG, "h" * (17 << 20))]
    prefixes.add(small, "one")
    prefixes.add(huge, "two")
    assert prefixes.readers(small, ("one", "two")) == (len(small), frozenset({"one"}))


def test_the_blocks_of_longest_standing_are_forgotten() -> None:
    prefixes = Prefixes(max_blocks=2)
    prefixes.add([b"a", b"b"], "one")
    prefixes.add([b"a", b"c"], "two")
    everybody = ("one", "two")
    assert prefixes.readers([b"a"], everybody) == (1, frozenset(everybody))
    assert prefixes.readers([b"b"], everybody) == (0, frozenset())
    prefixes.forget("two")
    assert prefixes.readers([b"a", b"c"], everybody) == (1, frozenset({"one"}))


def test_a_replica_that_broke_a_call_is_the_last_choice_for_a_while() -> None:
    now = [100.0]
    calls = Calls(lambda: now[0])
    with pytest.raises(EngineBroke), calls.one():
        raise EngineBroke("gone")
    assert calls.is_suspect
    now[0] += SUSPECT_S
    assert not calls.is_suspect


async def test_many_conversations_stay_with_their_replicas_and_the_load_stays_even(house: House) -> None:
    """A simulation: 40 conversations of 12 turns over three replicas, at most 18 calls at once."""
    router, replicas, texts = Router(), house.big.replicas, [f"{number} {LONG}" for number in range(40)]
    turns = [number for _ in range(12) for number in range(40)]
    at_home: Counter[bool] = Counter()
    reads: dict[int, str] = {}
    running: list[Any] = []
    widest = 0
    for number in turns:
        texts[number] += f"and so on {'z' * 500}"
        chosen = router.choose(replicas, await blocks_of(Prompt([{"role": "user", "content": texts[number]}])))
        assert chosen is not None
        call = chosen.calls.one()
        call.__enter__()
        running.append(call)
        at_home[reads.get(number, chosen.name) == chosen.name] += 1
        reads[number] = chosen.name
        loads = [each.calls.count for each in replicas]
        widest = max(widest, max(loads) - min(loads))
        if len(running) == 18:
            running.pop(0).__exit__(None, None, None)
    assert at_home[True] >= 0.9 * len(turns)
    assert widest <= 3
