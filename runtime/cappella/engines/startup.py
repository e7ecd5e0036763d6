"""The start of an engine process, from its fork until its first token."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from cappella.engines.base import SingleServer
from cappella.engines.launcher import ServerProcess
from cappella.engines.start_times import Countdown
from cappella.errors import EngineBroke, EngineError

POLL_S = 0.1
START_TIMEOUT_S = 1800.0
"""From the moment when the server's own process begins."""
FIRST_TOKEN_TIMEOUT_S = 300.0
STALLED_AFTER_S = 300.0
"""A start has hung if neither its log nor its memory grows for so long. Slow disks and compilers move both."""
STALL_CHECK_SHARE = 1 / 100
"""The interval of its checks, as a share of `stalled_after_s`."""
MIN_PROGRESS_BYTES = 1 << 20
"""Memory that counts as progress: the threads of a hung process take some, too."""

HeldBytes = Callable[[int], int]
"""Returns how much memory a process group holds."""


class StartStalled(EngineBroke):
    """The start made no progress."""


class StallDetector:
    """Watches the length of a starting process's log and the memory of its process group."""

    def __init__(self, process: ServerProcess, held_bytes: HeldBytes, stalled_after_s: float) -> None:
        self._process = process
        self._held_bytes = held_bytes
        self._stalled_after_s = stalled_after_s
        self._log_bytes = self._memory_bytes = 0
        self._progress_at = time.monotonic()

    async def watch(self) -> None:
        """Run until cancelled. Raises StartStalled."""
        while True:
            await asyncio.sleep(self._stalled_after_s * STALL_CHECK_SHARE)
            group, log_bytes = self._process.starting_group, self._process.startup_log.grown_bytes
            memory_bytes = await asyncio.to_thread(self._held_bytes, group) if group is not None else 0
            if log_bytes != self._log_bytes or abs(memory_bytes - self._memory_bytes) >= MIN_PROGRESS_BYTES:
                self._log_bytes, self._memory_bytes = log_bytes, memory_bytes
                self._progress_at = time.monotonic()
            if time.monotonic() - self._progress_at > self._stalled_after_s:
                stage = self._process.startup_log.stage.name
                raise StartStalled(f"no progress for {self._stalled_after_s:g} s while {stage}")


async def wait_for_first_token(
    engine: SingleServer, process: ServerProcess, countdown: Countdown, stall_detector: StallDetector
) -> None:
    """Wait until the engine has given a token, and show its progress in its status. Raises EngineBroke."""
    reporting = asyncio.create_task(_report_progress(engine, process, countdown))
    try:
        await _first_of(_wait_until_healthy(engine, process), stall_detector.watch())
        await _probe(engine)
    finally:
        reporting.cancel()
        await asyncio.wait({reporting})
        engine.status.remaining_s = None


async def _first_of(*waits: Coroutine[Any, Any, None]) -> None:
    """Wait for the first to return or raise, and cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _report_progress(engine: SingleServer, process: ServerProcess, countdown: Countdown) -> None:
    """Update the status until cancelled, or until an operator has stopped the engine."""
    status = engine.status
    while True:
        # The log may have been deleted.
        with suppress(OSError):
            await asyncio.to_thread(process.startup_log.read, process.log)
        if status.state == "stopped":
            return
        stage = process.startup_log.stage
        status.stage, status.progress = stage.name, stage.progress
        status.remaining_s = countdown.remaining_s(stage.name)
        await asyncio.sleep(POLL_S)


async def _wait_until_healthy(engine: SingleServer, process: ServerProcess) -> None:
    began_at: float | None = None
    while not await _is_healthy(engine):
        if not process.running:
            raise EngineBroke(f"did not start: {await process.exit_reason()}")
        # Before that it may wait for a node, or for the check of its weights there, for hours.
        if began_at is None and process.has_begun:
            began_at = time.monotonic()
        if began_at is not None and time.monotonic() - began_at > START_TIMEOUT_S:
            raise EngineBroke(f"did not start within {START_TIMEOUT_S:g} s")
        await asyncio.sleep(POLL_S)


async def _is_healthy(engine: SingleServer) -> bool:
    try:
        return await engine.healthy()
    except EngineError:
        return False


async def _probe(engine: SingleServer) -> None:
    try:
        async with asyncio.timeout(FIRST_TOKEN_TIMEOUT_S):
            await engine.probe()
    except TimeoutError as error:
        raise EngineBroke(f"no first token within {FIRST_TOKEN_TIMEOUT_S:g} s") from error
