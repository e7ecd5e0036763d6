"""Rows of batches are answered by the real gateway: each once, with no finished call made twice, whatever stops it."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.batch.store import BatchStore
from cappella.batch.types import Batch
from cappella.engines.swapping import SwapScheduler
from support.batch_gateway import (
    answering,
    asked,
    batch_config,
    calls_of_members,
    ends,
    now,
    until,
    with_batches,
    write_weights,
)
from support.fake_engines import MEMBERS, FakeEngines, choice_script, eventually, judge_script, last_message, serving
from support.loop_clock import pass_time
from support.scripted_engine import Json, Script
from support.scripted_pooling import add_pooling, pooling_config
from support.stored_batches import body, stored_batch
from support.strict_gateway import with_keys

HELD = Script(ending="held")


def rows(count: int, **fields: object) -> list[Json]:
    return [body(f"Question {number}.", **fields) for number in range(1, count + 1)]


def text_of(reply: Json) -> str:
    return str(reply["body"]["choices"][0]["message"]["content"])


def hold_if(fake_engines: FakeEngines, name: str, text: str, script: Script = HELD) -> None:
    """Let an engine hold the calls whose last message has this text, or answer them by `script`."""
    fake_engines.let(name, lambda asked: script if text in last_message(asked) else Script())


def waiting_calls(store: BatchStore, batch: Batch) -> int:
    return sum(each["waiting"] for each in store.progress.meter(batch.id).phases())


async def test_every_row_ends_once_with_a_reply_or_an_error(fake_engines: FakeEngines, tmp_path: Path) -> None:
    bodies = [
        *rows(3),
        body("Alone.", model="ann"),
        body("Bad.", fusion={"quorum": 9}),
        body("Unknown.", model="nobody"),
    ]
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, errors = await ends(store, await stored_batch(store, bodies))
    assert {name: text_of(reply) for name, reply in replies.items()} == {
        "r1": "The final answer",
        "r2": "The final answer",
        "r3": "The final answer",
        "r4": "Hello there",
    }
    assert {name: error["status_code"] for name, error in errors.items()} == {"r5": 400, "r6": 404}
    assert errors["r6"]["body"]["error"]["code"] == "model_not_found"
    assert set(calls_of_members(fake_engines).values()) == {1}


async def test_a_row_that_cannot_be_read_stops_no_other(fake_engines: FakeEngines, tmp_path: Path) -> None:
    before = BatchStore(tmp_path / "batches")
    deep = await stored_batch(before, [body("x" * 600, model="ann"), *rows(1)])
    path = before.files.path_of(deep.input_file_id)
    path.write_bytes(path.read_bytes().replace(b'"' + b"x" * 600 + b'"', b"[" * 301 + b"]" * 301))
    other = await stored_batch(before, rows(2))
    before.close()
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, errors = await ends(store, deep)
        others, _ = await ends(store, other)
    assert (list(replies), errors["r1"]["status_code"], len(others)) == (["r2"], 400, 2)


async def test_a_models_reply_that_is_none_ends_its_row(fake_engines: FakeEngines, tmp_path: Path) -> None:
    no_reply: Any = [7]
    fake_engines.let("ann", Script(refuse=(200, no_reply)))
    fake_engines.let("bob", Script(refuse=(200, {"object": "chat.completion", "choices": [], "usage": ["?"]})))
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        bodies = [body("One.", model="ann"), body("Two.", model="bob")]
        replies, errors = await ends(store, await stored_batch(store, bodies))
    assert errors["r1"]["status_code"] == 502
    assert "no JSON object" in errors["r1"]["body"]["error"]["message"]
    assert replies["r2"]["body"]["usage"] == ["?"]
    assert len(fake_engines.servers["ann"].bodies) == 1


async def test_a_large_reply_between_blanks_is_an_answer(fake_engines: FakeEngines, tmp_path: Path) -> None:
    spent = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    long = {"object": "chat.completion", "choices": [], "note": "x" * 200_000, "usage": spent}
    fake_engines.let("ann", Script(refuse=(200, long), blanks="\n "))
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, errors = await ends(store, await stored_batch(store, [body("One.", model="ann")]))
    assert errors == {}
    assert replies["r1"]["body"]["usage"] == spent


@pytest.mark.parametrize(
    ("options", "calls_of_a_row"),
    [
        ({"layers": 2, "answer_order": "arrival"}, 6),
        ({"review": True}, 6),
        ({"samples": 2, "analysis": "before", "max_total_tokens": 5000}, 3),
    ],
)
async def test_after_a_restart_no_finished_call_is_made_again_and_prompts_are_the_same(
    fake_engines: FakeEngines, tmp_path: Path, options: Json, calls_of_a_row: int
) -> None:
    for name in MEMBERS:
        # The first one arrives last, and not when it is replayed.
        fake_engines.let(name, Script(samples=(f"Says {name}.", "Two."), pause_s=0.1 * (name == "ann")))
    fake_engines.let("judge", HELD)
    judge, config = fake_engines.servers["judge"], batch_config(tmp_path, **options)
    async with answering(fake_engines, config) as store:
        batch = await stored_batch(store, rows(4))
        assert await eventually(lambda: len(judge.bodies) == 4)
    before = calls_of_members(fake_engines)
    fake_engines.let("judge", judge_script())
    async with answering(fake_engines, config) as store:
        replies, errors = await ends(store, batch)
    assert (len(replies), errors) == (4, {})
    assert calls_of_members(fake_engines) == before
    assert sum(before.values()) == 4 * calls_of_a_row
    assert set(judge.raw[:4]) <= set(judge.raw[4:])


async def test_scores_and_embeddings_are_stored_too(fake_engines: FakeEngines, tmp_path: Path) -> None:
    scripted = await add_pooling(fake_engines, tmp_path)
    for name in MEMBERS:
        fake_engines.let(name, Script((f"Says {name}.",)))
    fake_engines.let("judge", HELD)
    evidence = {"select": {"by": ["judge", "reward", "agreement"], "reward": "rm"}}
    asked = body(
        "Hi", fusion={"strategy": "select", "agreement": {"by": "embedding", "model": "emb", "alike": 0.9}, **evidence}
    )
    config = with_batches(pooling_config(), tmp_path)

    def calls() -> list[int]:
        return [len(fake_engines.servers[name].bodies) for name in ("ann", "rm", "emb", "judge")]

    async with answering(fake_engines, config) as store:
        batch = await stored_batch(store, [asked])
        assert await eventually(lambda: calls() == [1, 0, 1, 1])
    fake_engines.let("judge", judge_script(choice=choice_script(ann=0.9)))
    async with answering(fake_engines, config) as store:
        replies, errors = await ends(store, batch)
        assert (text_of(replies["r1"]), errors) == ("Says ann.", {})
        assert calls() == [1, 3, 1, 2]
        texts = [{"model": "emb", "input": ["a", "b"]}]
        replies, errors = await ends(store, await stored_batch(store, texts, endpoint="/v1/embeddings"))
    assert [each["embedding"] for each in replies["r1"]["body"]["data"]] == [[1.0, 0.5]] * 2
    assert len(scripted["emb"].bodies) == 2


async def test_what_was_refused_is_refused_after_a_restart_without_a_call(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    fake_engines.let("ann", Script(refuse=(400, {"error": {"message": "no such thing", "code": 400}})))
    fake_engines.let("judge", HELD)
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        batch = await stored_batch(store, rows(1))
        assert await eventually(lambda: bool(fake_engines.servers["judge"].bodies))
    fake_engines.let("judge", Script(("Yes.",)))
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, _ = await ends(store, batch)
    assert len(fake_engines.servers["ann"].bodies) == 1
    assert replies["r1"]["body"]["fusion"]["status"] == "degraded"


async def test_samples_thoughts_and_tool_calls_are_stored_as_they_came(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    call = Script((), reasoning="Hm.", calls=(("look", '{"at": 1}'),), finish_reason="tool_calls")
    fake_engines.let("judge", call)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    config = batch_config(tmp_path, samples=2)
    async with answering(fake_engines, config) as store:
        batch = await stored_batch(store, [body("Look.", model="cappella/tools", tools=tools)])
        replies, errors = await ends(store, batch)
    assert errors == {}
    message = replies["r1"]["body"]["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": 1}'}
    assert replies["r1"]["body"]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_place_is_filled_as_soon_as_a_row_ends_and_never_more_are_taken(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    peaks = dict.fromkeys(MEMBERS, 0)

    def script(name: str, asked: Json) -> Script:
        peaks[name] = max(peaks[name], fake_engines.servers[name].running + 1)
        return HELD if "Question 1." in last_message(asked) else Script()

    for name in MEMBERS:
        fake_engines.let(name, partial(script, name))
    async with answering(fake_engines, batch_config(tmp_path, sequences=2)) as store:
        batch = await stored_batch(store, rows(8))
        # All others pass one that takes long.
        await until(store, batch, completed=7)
        fake_engines.release()
        replies, _ = await ends(store, batch)
    assert len(replies) == 8
    assert peaks == dict.fromkeys(MEMBERS, 2)


def take_turns(fake_engines: FakeEngines) -> list[tuple[int, int]]:
    """Ann is awake, or bob and cat; returns the swaps, as they come."""
    swaps: list[tuple[int, int]] = []

    async def swap(old: int, new: int) -> None:
        swaps.append((old, new))

    fake_engines.turns = {"ann": 0, "bob": 1, "cat": 1}
    fake_engines.swap_scheduler = SwapScheduler(2, swap)
    for name, group in fake_engines.turns.items():
        fake_engines.engines[name]._hold_awake = partial(fake_engines.swap_scheduler.hold_awake, group)
    return swaps


async def test_groups_that_are_awake_in_turn_swap_once_for_all_rows(fake_engines: FakeEngines, tmp_path: Path) -> None:
    swaps = take_turns(fake_engines)
    async with answering(fake_engines, batch_config(tmp_path, sequences=2)) as store:
        replies, _ = await ends(store, await stored_batch(store, rows(12)))
    assert len(replies) == 12
    assert swaps == [(0, 1)]


async def test_an_online_request_of_another_group_wakes_it_and_the_rows_go_on_afterwards(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    swaps = take_turns(fake_engines)
    fake_engines.let("ann", HELD)
    async with serving(fake_engines, batch_config(tmp_path)) as url, aiohttp.ClientSession(url) as http:
        store = fake_engines.reloader.state.batches
        assert store
        batch = await stored_batch(store, rows(2, model="ann"))
        ann = fake_engines.servers["ann"]
        assert await eventually(lambda: ann.running == 2)
        async with http.post("/v1/chat/completions", json=body("Now!", model="bob")) as reply:
            assert (reply.status, ann.aborted, swaps) == (200, 2, [(0, 1)])
        fake_engines.release()
        replies, errors = await ends(store, batch)
    assert (len(replies), errors, swaps) == (2, {}, [(0, 1), (1, 0)])


async def test_an_online_request_goes_first_and_the_row_that_gave_way_is_answered_after_it(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    pace = asyncio.Semaphore(0)
    for name in MEMBERS:
        fake_engines.let(name, lambda asked: HELD if "Question" in last_message(asked) else Script(pace=pace))
    async with serving(fake_engines, batch_config(tmp_path, sequences=1)) as url, aiohttp.ClientSession(url) as http:
        store = fake_engines.reloader.state.batches
        assert store
        batch = await stored_batch(store, rows(2))
        assert await eventually(lambda: fake_engines.running == 3)
        online = asyncio.create_task(http.post("/v1/chat/completions", json=body("Now!")))
        assert await eventually(lambda: [fake_engines.servers[name].aborted for name in MEMBERS] == [1, 1, 1])
        assert await eventually(lambda: fake_engines.running == 3)
        for _ in range(6):
            pace.release()
        assert (await online).status == 200
        assert await eventually(lambda: fake_engines.running == 3)
        fake_engines.release()
        replies, errors = await ends(store, batch)
    assert (len(replies), errors) == (2, {})
    calls = ["Question" in text for text in asked(fake_engines, "ann")]
    assert calls == [True, False, True, True]


async def test_a_row_that_hangs_is_cut_at_its_deadline_and_the_others_are_answered(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    for name in MEMBERS:
        hold_if(fake_engines, name, "Question 2.", Script(ending="hang"))
    hold_if(fake_engines, "judge", "Question 3.", Script(ending="hang"))
    async with answering(fake_engines, batch_config(tmp_path, deadline_s=60.0)) as store:
        batch = await stored_batch(store, rows(3))
        await until(store, batch, completed=1)
        assert await eventually(lambda: fake_engines.running == 4)
        await pass_time(100)
        replies, errors = await ends(store, batch)
    assert errors["r2"]["status_code"] == 504
    assert errors["r2"]["body"]["error"]["code"] == "deadline_exceeded"
    assert {name: reply["body"]["fusion"]["status"] for name, reply in replies.items()} == {
        "r1": "ok",
        "r3": "degraded",
    }


async def test_the_wait_for_an_engine_is_no_part_of_the_deadline(fake_engines: FakeEngines, tmp_path: Path) -> None:
    for engine in fake_engines.engines.values():
        engine.status.state = "loading"
    async with answering(fake_engines, batch_config(tmp_path, deadline_s=60.0)) as store:
        batch = await stored_batch(store, rows(2))
        assert await eventually(lambda: waiting_calls(store, batch) == 8)
        await pass_time(100)
        assert (await now(store, batch)).paused is None
        for engine in fake_engines.engines.values():
            engine.status.state = "ready"
        replies, errors = await ends(store, batch)
    assert (len(replies), errors) == (2, {})


async def test_a_call_is_made_again_whose_engine_broke(fake_engines: FakeEngines, tmp_path: Path) -> None:
    scripts = iter([Script(ending="break"), Script()])
    fake_engines.let("ann", lambda _: next(scripts))
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, _ = await ends(store, await stored_batch(store, rows(1)))
    assert replies["r1"]["body"]["fusion"]["status"] == "ok"
    assert len(fake_engines.servers["ann"].bodies) == 2


async def test_a_batch_that_is_cancelled_frees_its_engines_and_keeps_what_has_ended(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold_if(fake_engines, "ann", "Question 2.")
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        batch = await stored_batch(store, rows(2))
        await until(store, batch, completed=1)
        await store.cancel(batch.id)
        found = await until(store, batch, status="cancelled")
        assert await eventually(lambda: fake_engines.running == 0)
    assert (found.completed, found.failed) == (1, 0)


async def test_a_reload_with_the_same_weights_goes_on_and_one_with_others_pauses_until_they_are_accepted(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    fake_engines.let("judge", HELD)
    config = batch_config(tmp_path)
    async with answering(fake_engines, config, lambda: config) as store:
        batch = await stored_batch(store, rows(2))
        judge = fake_engines.servers["judge"]
        assert await eventually(lambda: len(judge.bodies) == 2)
        await fake_engines.reloader.reload()
        assert await eventually(lambda: len(judge.bodies) == 4)
        assert len(fake_engines.servers["ann"].bodies) == 2
        write_weights(tmp_path, "other")
        await fake_engines.reloader.reload()
        found = await until(store, batch, paused=f"{batch.id} began with other weights than those that are served now.")
        assert (found.status, found.completed) == ("in_progress", 0)
        assert await eventually(lambda: fake_engines.running == 0)
        fake_engines.let("judge", Script(("Yes.",)))
        await store.accept_weights(batch.id)
        replies, _ = await ends(store, batch)
    assert len(replies) == 2
    assert len(fake_engines.servers["ann"].bodies) == 4


async def test_rows_count_the_tokens_of_their_key_and_end_as_errors_once_it_is_revoked(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    text = keys.create("night", ["run"], requests_per_minute=1)
    key = keys.find(text)
    assert key
    async with answering(fake_engines, with_keys(batch_config(tmp_path), tmp_path / "keys.sqlite")) as store:
        replies, errors = await ends(store, await stored_batch(store, rows(3), key.id))
        assert (len(replies), errors) == (3, {})
        keys.revoke(key.id)
        replies, errors = await ends(store, await stored_batch(store, rows(1), key.id))
        assert (replies, errors["r1"]["status_code"]) == ({}, 401)
    assert keys.usage()[key.id].completion_tokens == 3 * (3 * 2 + 3)


async def test_a_call_counts_once_for_its_key_also_after_a_restart(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    key = keys.find(keys.create("night", ["run"]))
    assert key
    fake_engines.let("judge", HELD)
    config = with_keys(batch_config(tmp_path), tmp_path / "keys.sqlite")
    async with answering(fake_engines, config) as store:
        batch = await stored_batch(store, rows(2), key.id)
        assert await eventually(lambda: len(fake_engines.servers["judge"].bodies) == 2)
    assert keys.usage()[key.id].completion_tokens == 2 * 3 * 2
    fake_engines.let("judge", judge_script())
    async with answering(fake_engines, config) as store:
        replies, _ = await ends(store, batch)
    assert keys.usage()[key.id].completion_tokens == 2 * (3 * 2 + 3)
    # The reply tells of all calls.
    assert replies["r1"]["body"]["fusion"]["usage"]["completion_tokens"] == 3 * 2 + 3


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        ("/v1/messages", {"max_tokens": 50}, "The final answer"),
        ("/v1/messages", {"max_tokens": 50, "model": "ann"}, "Hello there"),
        ("/v1/responses", {"input": "Hi", "messages": None}, "The final answer"),
    ],
)
async def test_rows_of_other_apis_are_answered_in_their_form(
    fake_engines: FakeEngines, tmp_path: Path, path: str, fields: Json, text: str
) -> None:
    asked = {name: value for name, value in body("Hi", **fields).items() if value is not None}
    async with answering(fake_engines, batch_config(tmp_path)) as store:
        replies, errors = await ends(store, await stored_batch(store, [asked], endpoint=path))
    assert errors == {}
    assert text in str(replies["r1"]["body"])
