"""One launch of an engine: its process, from the wait for GPU memory until it has ended."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from cappella.engines import last_failure, memory_use, startup
from cappella.engines.base import SingleServer
from cappella.engines.gpu_memory import COMMAND_TIMEOUT_S
from cappella.engines.health import Health
from cappella.engines.launcher import Launcher, ServerProcess
from cappella.engines.reconciler import Observed
from cappella.engines.spec import EngineSpec
from cappella.engines.start_times import Countdown
from cappella.errors import EngineError


class Launch:
    """Starts one process of an engine, watches it, and puts it to sleep, wakes it or stops it.

    `observed` is what the process does now, `ready_at` (`time.monotonic`) when it gave its first token.
    `was_ready_before` says that an earlier launch of the engine was ready.
    """

    def __init__(
        self,
        engine: SingleServer,
        launcher: Launcher,
        spec: EngineSpec,
        health: Health,
        was_ready_before: bool = False,
    ) -> None:
        self._engine = engine
        self._launcher = launcher
        self._spec = spec
        self._health = health
        self.was_ready_before = was_ready_before
        self.process: ServerProcess | None = None
        self.observed: Observed = "nothing"
        self.ready_at: float | None = None

    @property
    def engine_was_ready(self) -> bool:
        """Whether this launch or an earlier one was ready."""
        return self.was_ready_before or self.ready_at is not None

    @property
    def running_process(self) -> ServerProcess | None:
        return self.process if self.process and self.process.running else None

    def was_stable(self, stable_s: float) -> bool:
        """Whether it has been ready for longer than `stable_s`."""
        return self.ready_at is not None and time.monotonic() - self.ready_at > stable_s

    async def start(self, is_wanted: Callable[[], bool]) -> ServerProcess | None:
        """Start the process once its GPUs have room; None if the engine is no longer wanted by then.

        Raises EngineBroke if other processes hold the GPU memory, and OSError for a folder or log that cannot be made.
        """
        if self._spec.memory:
            await self._spec.memory.require_room()
        if is_wanted():
            self.process = await self._launcher.launch(self._spec.arguments, self._spec.folder, self._spec.log)
            last_failure.update_log_paths(self._engine.status, self._spec.log)
        self.observed = "starting" if is_wanted() else "ending"
        return self.process if self.observed == "starting" else None

    async def wait_for_first_token(self, process: ServerProcess) -> Countdown:
        """Returns how long each stage took. Raises EngineBroke with the reason from the log."""
        start_times = self._spec.start_times
        countdown = Countdown(process.startup_log.stages.names, start_times.last() if start_times else None)
        held_bytes = partial(memory_use.held_bytes, on_gpus=self._spec.memory is not None)
        stall_detector = startup.StallDetector(process, held_bytes, self._spec.stalled_after_s)
        try:
            with self._growing():
                await startup.wait_for_first_token(self._engine, process, countdown, stall_detector)
        except startup.StartStalled:
            if not process.has_begun:
                # The launcher itself hangs, as in the import of the server module, and would hang for every later engine.
                await self._launcher.close()
            raise
        return countdown

    def mark_ready(self, countdown: Countdown) -> None:
        """Record that the first token came, and how long that took."""
        # A later launch is forked with the modules in memory, and so is faster than the start of a server.
        if self._spec.start_times and not self.was_ready_before:
            self._spec.start_times.save(countdown.seconds_by_stage)
        self.observed, self.ready_at = "up", time.monotonic()

    async def watch(self, process: ServerProcess) -> str:
        """Wait until the engine is dead; returns the cause."""
        try:
            while True:
                # Not wait_for, here and elsewhere: on Python 3.11 it loses a cancellation that comes with the end.
                await process.wait(self._spec.health_interval_s)
                if not process.running:
                    return f"process ended: {await process.exit_reason()}"
                if cause := await self._health.check():
                    return await last_failure.cause_of_death(process, cause)
                process.mark_healthy()
                await process.shorten_log()
        finally:
            await self._health.pause()

    async def sleep_in_place(self, process: ServerProcess, abort_calls: bool) -> None:
        """Put the server to sleep with its process alive; stop the process if its GPU memory does not come back."""
        self.observed = "asleep"
        if abort_calls:
            await self._engine.close()
        await self._health.pause()
        memory = self._spec.memory
        freed = memory is not None and await memory.sleep_in_place(self._engine, process.process_group)
        # `watch` reports a process that has died meanwhile.
        if not freed and process.running:
            await self.stop(process, abort_calls=False)

    async def wake_in_place(self, process: ServerProcess) -> bool:
        """Whether the server woke and gave a token. If it did not, its process is killed, and `watch` returns."""
        self.observed = "up"
        try:
            with self._growing():
                async with asyncio.timeout(COMMAND_TIMEOUT_S + startup.FIRST_TOKEN_TIMEOUT_S):
                    await self._engine.wake_up()
                    await self._engine.probe()
        except (EngineError, TimeoutError):
            await process.kill()
            return False
        return True

    def _growing(self) -> AbstractContextManager[None]:
        return self._spec.memory.grows() if self._spec.memory else nullcontext()

    async def stop(self, process: ServerProcess, abort_calls: bool) -> None:
        """Stop the process; from here on its end counts as no crash."""
        self.observed = "ending"
        if abort_calls:
            await self._engine.close()
        await self._health.pause()
        await process.stop()
