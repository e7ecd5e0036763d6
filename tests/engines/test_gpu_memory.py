"""Whether a sleep has given its GPU memory back, while other engines take some."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from cappella.engines import gpu_memory
from cappella.engines.base import SingleServer
from cappella.engines.gpu_memory import GpuMemory, Sleep, SleepTurns

GROUP = 4711


@dataclass
class Gpu:
    """A GPU of 100 on which an engine holds 60; `sleep` calls back.

    The driver gives so many `answers`, and then so many `silences`.
    """

    held: int = 60
    others: int = 0
    turns: SleepTurns = field(default_factory=SleepTurns)
    asleep: Callable[[], None] = lambda: None
    answers: int = 1 << 30
    silences: int = 0

    async def sleep(self) -> None:
        self.asleep()

    def memory(self, tells: bool, keeps: int | None = None) -> GpuMemory:
        held = self.told if tells else (lambda group: 0)
        return GpuMemory(lambda: 100 - self.held - self.others, 0, Sleep(50, keeps), (3,), held, self.turns)

    def told(self, group: int) -> int:
        self.answers -= 1
        silent = -self.silences <= self.answers < 0
        return 0 if silent else self.held * (group == GROUP)

    async def sleeps(self, tells: bool, keeps: int | None = None) -> bool:
        return await self.memory(tells, keeps).sleep_in_place(cast(SingleServer, self), GROUP)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    monkeypatch.setattr(gpu_memory, "SLEEP_FREES_TIMEOUT_S", 0.1)
    return Gpu()


def frees(gpu: Gpu, kept: int, taken_by_others: int = 0) -> Callable[[], None]:
    def asleep() -> None:
        gpu.held, gpu.others = kept, taken_by_others

    return asleep


@pytest.mark.parametrize("tells", [True, False])
async def test_what_is_freed_is_seen_with_and_without_the_driver(gpu: Gpu, tells: bool) -> None:
    gpu.asleep = frees(gpu, kept=5)
    assert await gpu.sleeps(tells)


@pytest.mark.parametrize("tells", [True, False])
async def test_memory_that_is_held_on_to_is_seen_too(gpu: Gpu, tells: bool) -> None:
    gpu.asleep = frees(gpu, kept=40)
    assert not await gpu.sleeps(tells)


async def test_an_engine_is_judged_by_its_own_memory_while_another_wakes(gpu: Gpu) -> None:
    gpu.asleep = frees(gpu, kept=5, taken_by_others=60)
    assert await gpu.sleeps(tells=True)


async def test_without_the_driver_the_servers_word_counts_while_another_wakes(gpu: Gpu) -> None:
    def asleep() -> None:
        frees(gpu, kept=5, taken_by_others=60)()

    gpu.asleep = asleep
    with gpu.turns.grows((2, 3)):
        assert await gpu.sleeps(tells=False)
    assert not await gpu.sleeps(tells=False)


async def test_an_engine_that_starts_on_another_gpu_excuses_nothing(gpu: Gpu) -> None:
    gpu.asleep = frees(gpu, kept=40)
    with gpu.turns.grows((2,)):
        assert not await gpu.sleeps(tells=False)


@pytest.mark.parametrize(("kept", "is_good"), [(5, True), (40, False)])
async def test_one_silence_of_the_driver_judges_no_sleeper(gpu: Gpu, kept: int, is_good: bool) -> None:
    gpu.answers, gpu.silences = 1, 1
    gpu.asleep = frees(gpu, kept)
    assert await gpu.sleeps(tells=True) == is_good


@pytest.mark.parametrize(("kept", "is_good"), [(5, True), (40, False)])
async def test_a_driver_that_falls_silent_leaves_the_judgement_to_what_is_free(
    gpu: Gpu, kept: int, is_good: bool
) -> None:
    gpu.answers, gpu.silences = 1, 1 << 30
    gpu.asleep = frees(gpu, kept)
    assert await gpu.sleeps(tells=True) == is_good


async def test_a_sleeper_that_keeps_more_than_it_should_is_not_left_asleep(gpu: Gpu) -> None:
    gpu.asleep = frees(gpu, kept=10)
    assert not await gpu.sleeps(tells=True, keeps=6)
    gpu.held = 60
    assert await gpu.sleeps(tells=True, keeps=12)


async def test_engines_fall_asleep_one_after_another(gpu: Gpu) -> None:
    inside: list[bool] = []

    async def sleep() -> None:
        inside.append(gpu.turns.lock.locked())
        await asyncio.sleep(0)
        gpu.held = 0

    gpu.sleep = sleep  # type: ignore[method-assign]
    await asyncio.gather(gpu.sleeps(tells=False), gpu.sleeps(tells=False))
    assert inside == [True, True]
