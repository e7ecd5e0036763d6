"""A run and engines that may sleep: which it keeps awake, and whose waits it tells."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from cappella.config.options import Gate
from cappella.ensemble.events import Awake, Event, Waiting
from cappella.ensemble.progress import Progress
from cappella.ensemble.waits import Waits
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Script


class KeptAwake:
    """The engines that are kept awake at the moment, and all that ever were."""

    def __init__(self, fake_engines: FakeEngines) -> None:
        self.now: set[str] = set()
        self.ever: set[str] = set()
        for name, engine in fake_engines.engines.items():
            engine._keep_awake = partial(self._keep, name)

    @contextmanager
    def _keep(self, name: str) -> Iterator[None]:
        self.now.add(name)
        self.ever.add(name)
        try:
            yield
        finally:
            self.now.discard(name)


async def test_a_run_keeps_its_members_and_its_judge_awake_until_it_ends(fake_engines: FakeEngines) -> None:
    kept = KeptAwake(fake_engines)
    fake_engines.let("ann", Script(("a",), ending="held"))
    run = asyncio.create_task(fake_engines.run())
    assert await eventually(lambda: fake_engines.partial_answer("ann") == "a")
    assert kept.now == {"ann", "bob", "cat", "judge"}
    fake_engines.release()
    assert (await run).status == "ok"
    assert not kept.now


async def test_a_cancelled_run_keeps_nobody_awake(fake_engines: FakeEngines) -> None:
    kept = KeptAwake(fake_engines)
    fake_engines.let("ann", Script(("a",), ending="hang"))
    run = asyncio.create_task(fake_engines.run())
    assert await eventually(lambda: len(kept.now) == 4)
    run.cancel()
    await asyncio.wait({run})
    assert not kept.now


async def test_a_run_that_one_model_answers_alone_wakes_no_other(fake_engines: FakeEngines) -> None:
    kept = KeptAwake(fake_engines)
    run = await fake_engines.run("Hi", gate=Gate("rules", "ann", max_words=9))
    assert (run.status, kept.ever) == ("bypassed", set())


def test_calls_of_a_model_that_wait_together_are_told_once() -> None:
    events: list[Event] = []
    waits = Waits(events.append)
    waits("judge", "asleep")
    waits("judge", "asleep")
    waits("judge", None)
    assert [type(event) for event in events] == [Waiting]
    waits("judge", None)
    assert [(type(event), getattr(event, "name", None)) for event in events] == [(Waiting, "judge"), (Awake, "judge")]


def test_progress_as_text_tells_who_wakes() -> None:
    progress = Progress(lambda _: None)
    progress(Waiting("ann", "asleep"))
    progress(Waiting("bob", "swap"))
    progress(Awake("ann", 3.0))
    assert progress.text == "**ann** was asleep, and wakes.\n\n**bob** waits for its turn.\n\n"
