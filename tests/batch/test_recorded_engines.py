"""One row's engines: what counts as work, what is made again, and what is cut."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from cappella.batch.engines import RecordedEngine, RowCalls
from cappella.batch.phases import Host, Phases
from cappella.batch.progress import Meter
from cappella.engines import waiting
from cappella.engines.waiting import WaitReason
from cappella.errors import EngineBroke, EngineOverdue, EngineRejected
from cappella.types import Prompt, Sampling
from support.fake_engines import FakeEngines
from support.loop_clock import pass_time
from support.scripted_engine import Script
from support.sleeper import Sleeper

PROMPT = Prompt([{"role": "user", "content": "Hi"}])


class OneRow:
    """The calls of one row to the engine ann."""

    def __init__(self, fake_engines: FakeEngines, stored: Mapping[bytes, bytes] = {}, deadline_s: float = 60) -> None:
        engine: Any = fake_engines.engines["ann"]
        self.kept: dict[bytes, bytes] = {}
        self.counting = Meter().row({"ann": None})
        phases = Phases({"ann": Host(engine, lambda: 4)}, 0.5)
        self.calls = RowCalls(phases, 1, stored, self._keep, self.counting.__enter__())
        self.calls.deadline_s = deadline_s
        self.engine = RecordedEngine("ann", "ann", engine, self.calls, retry_after_s=(0.0, 0.0))
        self.made = fake_engines.servers["ann"].bodies

    async def ask(self, sampling: Sampling = Sampling()) -> str:
        async with aclosing(self.engine.chat(PROMPT, sampling)) as chunks:
            return "".join([chunk.content async for chunk in chunks])

    async def _keep(self, key: bytes, value: bytes) -> None:
        self.kept[key] = value


async def test_the_same_question_twice_is_two_calls_each_with_its_own_answer(fake_engines: FakeEngines) -> None:
    scripts = iter([Script(("one",)), Script(("two",))])
    fake_engines.let("ann", lambda _: next(scripts))
    row = OneRow(fake_engines)
    assert [await row.ask(), await row.ask()] == ["one", "two"]
    again = OneRow(fake_engines, row.kept)
    assert [await again.ask(), await again.ask()] == ["one", "two"]
    assert len(row.made) == 2


async def test_a_call_whose_engine_breaks_every_time_fails_and_is_not_stored(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="break"))
    row = OneRow(fake_engines)
    with pytest.raises(EngineBroke):
        await row.ask()
    assert (len(row.made), row.kept) == (3, {})


@pytest.mark.parametrize("status_code", [408, 409, 425, 429])
async def test_a_refusal_that_another_moment_would_not_have_had_is_no_answer(
    fake_engines: FakeEngines, status_code: int
) -> None:
    refusal = Script(refuse=(status_code, {"error": {"message": "not now", "code": status_code}}))
    scripts = iter([refusal, refusal, Script(("one",)), refusal, refusal, refusal])
    fake_engines.let("ann", lambda _: next(scripts))
    row = OneRow(fake_engines)
    assert await row.ask() == "one"
    kept = dict(row.kept)
    with pytest.raises(EngineRejected, match="not now"):
        await row.ask()
    assert (len(row.made), row.kept) == (6, kept)


async def test_a_refusal_of_what_was_asked_is_stored_at_once(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(refuse=(422, {"error": {"message": "no such thing", "code": 422}})))
    row = OneRow(fake_engines)
    for each in (row, OneRow(fake_engines, row.kept)):
        with pytest.raises(EngineRejected, match="no such thing"):
            await each.ask()
    assert len(row.made) == 1


async def test_after_the_deadline_no_call_is_made(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="hang"))
    row = OneRow(fake_engines, deadline_s=0.1)
    for _ in range(2):
        with pytest.raises(EngineOverdue, match=r"ann had not finished at the deadline of 0.1 s"):
            await row.ask()
    assert len(row.made) <= 1


async def test_a_wait_for_the_engine_to_wake_is_no_work_and_is_told(fake_engines: FakeEngines) -> None:
    sleeper, told = Sleeper(fake_engines, "ann"), list[WaitReason | None]()
    row = OneRow(fake_engines, deadline_s=60)
    with waiting.listening(lambda model, reason: told.append(reason)):
        asked = asyncio.create_task(row.ask())
    await sleeper.is_waited_for.wait()
    await pass_time(100)
    assert not asked.done()
    sleeper.wakes.set()
    assert await asked == "Hello there"
    assert told == ["batch", None, "asleep", None]
