"""The life of one engine: start, watch, die, back off, start again, give up."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cappella.engines.process import EngineProcess, ForkServer
from cappella.engines.vllm import VllmEngine
from cappella.errors import EngineBroke, EngineError

HEALTH_INTERVAL_S = 1.0
LOAD_INTERVAL_S = 0.1
START_TIMEOUT_S = 1800.0
FIRST_TOKEN_TIMEOUT_S = 300.0
HUNG_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each new try, in turn; an engine that was ready for `stable_s` begins anew."""

    delays_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    stable_s: float = 120.0


class Lifecycle:
    """Keeps one engine running with `arguments` until cancelled, or until its tries are used up."""

    def __init__(
        self,
        engine: VllmEngine,
        fork_server: ForkServer,
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        start_slots: asyncio.Semaphore,
        backoff: Backoff,
    ) -> None:
        self._engine = engine
        self._fork_server = fork_server
        self._arguments = arguments
        self._folder = folder
        self._log = log
        self._start_slots = start_slots
        self._backoff = backoff
        self._ready_at: float | None = None
        self._process: EngineProcess | None = None

    @property
    def log(self) -> Path:
        """Where the engine's last words stand."""
        return self._process.log if self._process else self._log

    def last_words(self) -> list[str]:
        """The end of the engine's log, where the reason of a failed start stands."""
        return self._process.last_words() if self._process else []

    async def run(self) -> None:
        status = self._engine.status
        tries = 0
        while True:
            reason = await self._live()
            tries = 0 if self._was_stable() else tries
            if tries == len(self._backoff.delays_s):
                break
            status.state, status.stage = "restarting", f"waiting {self._backoff.delays_s[tries]:g} s: {reason}"
            status.reason, status.progress, status.restarts = reason, 0.0, status.restarts + 1
            await asyncio.sleep(self._backoff.delays_s[tries])
            tries += 1
        status.state, status.reason = "failed", reason
        status.stage = f"gave up after {tries + 1} tries: {reason}"

    async def _live(self) -> str:
        """One life, from start to death; returns the cause of death in plain words."""
        self._ready_at = self._process = None
        try:
            async with self._start_slots:
                self._process = await self._fork_server.fork(self._arguments, self._folder, self._log)
                await self._load(self._process)
            return await self._watch(self._process)
        except EngineError as error:
            return str(error)
        except asyncio.CancelledError:
            self._engine.status.state = self._engine.status.stage = "stopped"
            if self._process:
                await self._process.stop()
            raise
        finally:
            if self._process:
                await self._process.kill()
            await self._engine.close()

    async def _load(self, process: EngineProcess) -> None:
        """Until a first token has come back. Raises EngineBroke with the reason from the log."""
        status = self._engine.status
        give_up_at = time.monotonic() + START_TIMEOUT_S
        # A restarting engine keeps that word, so that its judge role degrades instead of answering "still loading".
        status.state = "restarting" if status.restarts else "loading"
        while not await self._answers():
            if not process.running:
                raise EngineBroke(f"it did not start: {process.reason()}")
            if time.monotonic() > give_up_at:
                raise EngineBroke(f"it did not start within {START_TIMEOUT_S:g} s")
            status.stage, status.progress = process.stage()
            await asyncio.sleep(LOAD_INTERVAL_S)
        try:
            await asyncio.wait_for(self._engine.probe(), FIRST_TOKEN_TIMEOUT_S)
        except TimeoutError as error:
            raise EngineBroke(f"it gave no first token within {FIRST_TOKEN_TIMEOUT_S:g} s") from error
        self._ready_at = time.monotonic()
        status.state, status.stage, status.progress, status.reason = "ready", "ready", 1.0, None

    async def _watch(self, process: EngineProcess) -> str:
        """Until the engine is dead; returns how that showed."""
        answered_at = time.monotonic()
        while True:
            try:
                await asyncio.wait_for(process.wait(), HEALTH_INTERVAL_S)
                return f"its process ended: {process.reason()}"
            except TimeoutError:
                pass
            try:
                if not await self._engine.healthy():
                    return "its engine core died"
                answered_at = time.monotonic()
            except EngineError as error:
                if time.monotonic() - answered_at > HUNG_AFTER_S:
                    return f"it did not answer for {HUNG_AFTER_S:g} s: {error}"

    async def _answers(self) -> bool:
        try:
            return await self._engine.healthy()
        except EngineError:
            return False

    def _was_stable(self) -> bool:
        return self._ready_at is not None and time.monotonic() - self._ready_at > self._backoff.stable_s
