"""Engines that sleep when nobody uses them, and wake for the next call: over stub processes."""

import asyncio
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from cappella.engines import waiting
from cappella.engines.waiting import WaitReason
from cappella.errors import EngineNotReady
from cappella.types import Prompt, Sampling
from support.fake_engines import eventually
from support.stub_lifecycle import HEALTH_INTERVAL_S, Stub, gone, running_stub, server_of

HI = Prompt([{"role": "user", "content": "Hi"}])
SOON_S = 0.2
NEVER_S = 3600.0


async def call(stub: Stub) -> str:
    return "".join([chunk.content async for chunk in stub.engine.chat(HI, Sampling())])


async def asleep(stub: Stub) -> bool:
    return await eventually(lambda: stub.state == "asleep" and not stub.lifecycle._command_lock.locked())


async def fall_asleep(stub: Stub) -> None:
    """As if the time were over."""
    assert await stub.ready()
    await stub.lifecycle.sleep("idle")


@pytest.mark.parametrize("sleep_mode", [True, False], ids=["gpu", "cpu"])
async def test_an_engine_that_nobody_calls_sleeps_and_wakes_for_the_next_call(tmp_path: Path, sleep_mode: bool) -> None:
    async with running_stub(tmp_path, sleep_mode=sleep_mode, sleep_after_s=SOON_S) as stub:
        assert await stub.ready()
        group = stub.group
        assert await asleep(stub)
        # On a GPU the process stays, and its memory is free; on a CPU it ends.
        if sleep_mode:
            assert (stub.group, stub.free_bytes()) == (group, 100)
        else:
            assert await eventually(partial(gone, group))
        assert stub.engine.status.accepts_requests
        assert await call(stub) == "x"
        status = stub.engine.status
        assert (status.wakes, status.restarts, status.last_failure) == (1, 0, None)
        assert status.last_wake_s
        # And it does so again.
        assert await asleep(stub)
        assert await call(stub) == "x"
        assert status.wakes == 2


async def test_without_the_key_an_engine_stays_awake(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        await asyncio.sleep(6 * HEALTH_INTERVAL_S)
        assert stub.state == "ready"


async def test_an_engine_in_use_does_not_sleep(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_after_s=SOON_S) as stub:
        with stub.engine.keep_awake():
            assert await stub.ready()
            await asyncio.sleep(SOON_S + 6 * HEALTH_INTERVAL_S)
            assert stub.state == "ready"
        assert await asleep(stub)


async def test_a_run_begins_to_wake_an_engine_before_its_first_call(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        with stub.engine.keep_awake():
            assert await stub.ready()
        assert await eventually(lambda: stub.engine.status.wakes == 1)


async def test_calls_that_wait_for_one_wake_are_told_so_and_count_it_once(tmp_path: Path) -> None:
    told: list[tuple[str, WaitReason | None]] = []
    async with running_stub(tmp_path, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        with waiting.listening(lambda model, reason: told.append((model, reason))):
            assert "".join(await asyncio.gather(*(call(stub) for _ in range(3)))) == "xxx"
        assert stub.engine.status.wakes == 1
        assert told == [("ann", "asleep")] * 3 + [("ann", None)] * 3


@pytest.mark.parametrize("sleep_mode", [True, False], ids=["gpu", "cpu"])
async def test_a_call_that_comes_while_the_engine_falls_asleep_is_answered(tmp_path: Path, sleep_mode: bool) -> None:
    async with running_stub(tmp_path, sleep_mode=sleep_mode, sleep_after_s=NEVER_S) as stub:
        for moment_s in (0.0, 0.001, 0.01, 0.1):
            assert await stub.ready()
            falling = asyncio.create_task(stub.lifecycle.sleep("idle"))
            await asyncio.sleep(moment_s)
            assert await call(stub) == "x"
            await falling
        assert (stub.state, stub.engine.status.restarts) == ("ready", 0)


async def test_a_wake_goes_on_for_others_when_the_first_caller_leaves(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        first = asyncio.create_task(call(stub))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(call(stub))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "x"
        assert stub.engine.status.wakes == 1


async def test_a_wake_that_fails_is_an_error_of_the_call_and_the_engine_recovers(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "wakes broken", sleep_mode=True, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        with pytest.raises(EngineNotReady, match="did not wake"):
            await call(stub)
        assert await stub.ready()
        assert (stub.engine.status.restarts, stub.engine.status.wakes) == (1, 0)
        assert await call(stub) == "x"


async def test_a_sleeper_is_not_taken_for_hung(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True, sleep_after_s=NEVER_S) as stub:
        health = stub.lifecycle._health
        health._hung_after_s = health._quiet_s = 2 * HEALTH_INTERVAL_S
        await fall_asleep(stub)
        await asyncio.sleep(10 * HEALTH_INTERVAL_S)
        assert (stub.state, stub.engine.status.last_failure) == ("asleep", None)
        assert await call(stub) == "x"


async def test_a_sleeper_that_is_killed_starts_anew_for_the_next_call(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        os.kill(server_of(stub.group), signal.SIGKILL)
        assert await eventually(lambda: stub.lifecycle.process_group is None)
        assert stub.state == "asleep"
        assert await call(stub) == "x"
        assert stub.engine.status.restarts == 0


async def test_what_an_operator_wants_outweighs_calls(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        assert stub.lifecycle.actions == ("sleep", "wake")
        await stub.lifecycle.stop()
        with pytest.raises(EngineNotReady), stub.engine.keep_awake():
            await call(stub)
        assert stub.state == "stopped"
        await stub.lifecycle.resume()
        assert await stub.ready()


async def test_an_operator_can_wake_a_sleeper(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        await stub.lifecycle.resume()
        assert stub.state == "ready"


async def test_a_swap_and_idleness_are_two_reasons_to_sleep(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        await stub.lifecycle.sleep("swap")
        # The group's turn alone loads no engine that nobody calls, and keeps no other waiting for it.
        async with asyncio.timeout(5):
            await stub.lifecycle.wake("swap")
        assert stub.state == "asleep"
        assert await call(stub) == "x"


@pytest.mark.parametrize("sleep_mode", [True, False], ids=["gpu", "cpu"])
async def test_a_shutdown_ends_calls_that_wait_for_a_wake(tmp_path: Path, sleep_mode: bool) -> None:
    slots = asyncio.Semaphore(1)
    async with running_stub(tmp_path, sleep_mode=sleep_mode, slots=slots, sleep_after_s=NEVER_S) as stub:
        await fall_asleep(stub)
        # So that the wake does not end before the shutdown.
        await slots.acquire()
        waits = asyncio.create_task(call(stub))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        with suppress(EngineNotReady):
            await waits
    assert stub.state == "stopped"
    assert stub.lifecycle.process_group is None


async def test_a_sleep_that_a_shutdown_overtakes_leaves_no_connection(tmp_path: Path) -> None:
    async def let_go() -> None:
        assert await eventually(lambda: stub.lifecycle.process_group is None)
        lock.release()

    async with running_stub(tmp_path, sleep_mode=True) as stub:
        assert await stub.ready()
        assert stub.lifecycle._spec.memory
        lock = stub.lifecycle._spec.memory.turns.lock
        await lock.acquire()
        falling = asyncio.create_task(stub.lifecycle.sleep("idle"))
        assert await eventually(stub.lifecycle._command_lock.locked)
        letting = asyncio.create_task(let_go())
    await asyncio.gather(falling, letting)
    assert stub.engine._session is None
