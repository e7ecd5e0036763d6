"""An engine process from its first breath to its first token."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from cappella.engines.base import EngineServer
from cappella.engines.process.process import EngineProcess
from cappella.engines.start_times import Countdown
from cappella.errors import EngineBroke, EngineError

LOOK_INTERVAL_S = 0.1
START_TIMEOUT_S = 1800.0
FIRST_TOKEN_TIMEOUT_S = 300.0
STALLED_AFTER_S = 300.0
"""A start in which neither the log nor the memory grows for so long has hung. Slow disks and compilers move both."""
PROGRESS_INTERVAL_SHARE = 1 / 100
MIN_PROGRESS_BYTES = 1 << 20
"""Of memory: threads of a process that hangs take some, too."""

HeldBytes = Callable[[int], int]
"""How much memory a process group holds."""


class StartStalled(EngineBroke):
    """A start that hangs."""


class Progress:
    """Whether a start still moves, of the length of its log and the memory that it holds."""

    def __init__(self, process: EngineProcess, held_bytes: HeldBytes, stalled_after_s: float) -> None:
        self._process = process
        self._held_bytes = held_bytes
        self._stalled_after_s = stalled_after_s
        self._log_bytes = self._memory_bytes = 0
        self._moved_at = time.monotonic()

    async def watch(self) -> None:
        """Until cancelled. Raises StartStalled."""
        while True:
            await asyncio.sleep(self._stalled_after_s * PROGRESS_INTERVAL_SHARE)
            group, log_bytes = self._process.starting_group, self._process.startup.grown_bytes
            memory_bytes = await asyncio.to_thread(self._held_bytes, group) if group is not None else 0
            if log_bytes != self._log_bytes or abs(memory_bytes - self._memory_bytes) >= MIN_PROGRESS_BYTES:
                self._log_bytes, self._memory_bytes = log_bytes, memory_bytes
                self._moved_at = time.monotonic()
            if time.monotonic() - self._moved_at > self._stalled_after_s:
                stage = self._process.startup.stage[0]
                raise StartStalled(f"it made no progress for {self._stalled_after_s:g} s while {stage}")


async def load(engine: EngineServer, process: EngineProcess, countdown: Countdown, progress: Progress) -> None:
    """Until a first token has come back; the status shows how far it is. Raises EngineBroke with the reason."""
    showing = asyncio.create_task(_show(engine, process, countdown))
    try:
        await _first_of(_until_it_answers(engine, process), progress.watch())
        await _first_token(engine)
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        engine.status.remaining_s = None


async def _first_of(*waits: Coroutine[Any, Any, None]) -> None:
    """The first that ends, well or not, ends the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(engine: EngineServer, process: EngineProcess, countdown: Countdown) -> None:
    """Until cancelled, or until an operator has put the engine to sleep."""
    status = engine.status
    while True:
        # Somebody may have taken the log away.
        with suppress(OSError):
            await asyncio.to_thread(process.startup.read, process.log)
        if status.state == "stopped":
            return
        status.stage, status.progress = process.startup.stage
        status.remaining_s = countdown.left_s(status.stage)
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _until_it_answers(engine: EngineServer, process: EngineProcess) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not await _answers(engine):
        if not process.running:
            raise EngineBroke(f"it did not start: {await process.reason()}")
        if time.monotonic() > give_up_at:
            raise EngineBroke(f"it did not start within {START_TIMEOUT_S:g} s")
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _answers(engine: EngineServer) -> bool:
    try:
        return await engine.healthy()
    except EngineError:
        return False


async def _first_token(engine: EngineServer) -> None:
    try:
        async with asyncio.timeout(FIRST_TOKEN_TIMEOUT_S):
            await engine.probe()
    except TimeoutError as error:
        raise EngineBroke(f"it gave no first token within {FIRST_TOKEN_TIMEOUT_S:g} s") from error
