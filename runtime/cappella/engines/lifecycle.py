"""The life of one engine: start, watch, die, back off, start again, give up; sleep, in turns or as an operator asks."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cappella.engines import startup
from cappella.engines.base import EngineServer
from cappella.engines.gpu_memory import COMMAND_TIMEOUT_S, GpuMemory
from cappella.engines.health import Health
from cappella.engines.process.process import EngineProcess, ForkServer
from cappella.engines.start_times import Countdown, StartTimes
from cappella.engines.status import ACTIONS, Action
from cappella.errors import ConfigError, EngineBroke, EngineError

HEALTH_INTERVAL_S = 1.0
WAKE_INTERVAL_S = 0.1
ASLEEP = "asleep: another turn is awake"
HELD = "put to sleep by an operator"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each new try, in turn; an engine that was ready for `stable_s` begins anew."""

    delays_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    stable_s: float = 120.0


class Lifecycle:
    """Keeps one engine running with `arguments` until cancelled, or until its tries are used up."""

    def __init__(
        self,
        engine: EngineServer,
        fork_server: ForkServer,
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        start_slots: asyncio.Semaphore,
        backoff: Backoff,
        memory: GpuMemory | None = None,
        hung_after_s: float = 60.0,
        start_times: StartTimes | None = None,
    ) -> None:
        self._engine = engine
        self._health = Health(engine, hung_after_s)
        self._fork_server = fork_server
        self._arguments = arguments
        self._folder = folder
        self._log = log
        self._start_slots = start_slots
        self._backoff = backoff
        self._ready_at: float | None = None
        self._process: EngineProcess | None = None
        self._memory = memory
        self._start_times = start_times
        self._napping = self._end_was_asked = self._was_up = False
        self._in_turn, self._held = True, False
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._hurry = asyncio.Event()
        # One at a time tells the engine to sleep or to wake.
        self._telling = asyncio.Lock()

    @property
    def log(self) -> Path:
        """Where the engine's last words stand."""
        return self._process.log if self._process else self._log

    def last_words(self) -> list[str]:
        """The end of the engine's log, where the reason of a failed start stands."""
        return self._process.last_words() if self._process else []

    @property
    def actions(self) -> Sequence[Action]:
        """What an operator may ask for now; nothing while an earlier wish is being carried out."""
        state = self._engine.status.state
        over = state == "stopped" and not self._held
        return () if over or self._telling.locked() else ACTIONS[state]

    @property
    def process_group(self) -> int | None:
        """Of all the engine's processes; None where there are none."""
        return self._process.keeper_pid if self._process and self._process.running else None

    def sleep_at_first(self) -> None:
        """Start nothing until `wake`."""
        self._want(False, self._held)

    async def sleep(self) -> None:
        """Give the memory back: by vLLM's own sleep where it `naps` and the memory is seen to come back, else by its end."""
        naps = self._may_nap
        self._want(False, self._held)
        status = self._engine.status
        if status.state in ("ready", "unhealthy"):
            status.state, status.stage = "asleep", ASLEEP
        async with self._telling:
            await self._give_memory_back(naps)

    async def hold(self) -> None:
        """An operator's sleep: no call, no turn and no crash wakes it until `release`. Calls under way fail."""
        naps = self._may_nap
        self._want(self._in_turn, True)
        self._lie_down()
        async with self._telling:
            await self._give_memory_back(naps, cutting=True)

    async def release(self) -> None:
        """Undo `hold`: it wakes, or waits for its turn."""
        self._want(self._in_turn, False)
        if self._in_turn:
            self._begin_anew()
        else:
            self._lie_down()
        await self._wake_if_napping()

    async def renew(self) -> None:
        """Another life at once, in place of this one or of the wait for it. Calls under way fail; no try is used up."""
        self._begin_anew()
        self._engine.status.restarts_asked += 1
        self._hurry.set()
        async with self._telling:
            await self._give_memory_back(naps=False, cutting=True)

    def forgive(self) -> None:
        """Ready to `run` once more after it was given up."""
        self._engine.status.reason = None
        self._begin_anew()

    def _want(self, in_turn: bool, held: bool) -> None:
        self._in_turn, self._held = in_turn, held
        if in_turn and not held:
            self._wanted.set()
        else:
            self._wanted.clear()
            self._hurry.set()

    def _begin_anew(self) -> None:
        self._engine.status.state = self._starting
        self._engine.status.stage, self._engine.status.progress = "waiting for its turn", 0.0

    def _lie_down(self) -> None:
        status = self._engine.status
        status.state, status.stage = ("stopped", HELD) if self._held else ("asleep", ASLEEP)
        status.progress = 0.0

    @property
    def _starting(self) -> Literal["loading", "restarting"]:
        """Who was up once is never again "still loading": without its judge a run degrades instead of being refused."""
        return "restarting" if self._was_up or self._engine.status.restarts else "loading"

    @property
    def _may_nap(self) -> bool:
        memory = self._memory
        return self._engine.status.state == "ready" and memory is not None and memory.nap_frees_bytes is not None

    async def _give_memory_back(self, naps: bool, cutting: bool = False) -> None:
        process = self._process
        if process is None or not process.running or self._napping:
            return
        # Before anything else happens to it: however it ends from here on, it has not crashed.
        self._end_was_asked = not naps
        if cutting:
            await self._engine.close()
        await self._health.rest()
        if naps and self._memory:
            self._napping = await self._memory.nap(self._engine)
        # Dead meanwhile, it has been seen to be so.
        if process.running and not self._napping:
            self._end_was_asked = True
            await process.stop()

    async def _wake_from_nap(self, process: EngineProcess) -> None:
        """Awake is who answers. Whoever does not is ended, and starts anew."""
        self._napping = False
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S + startup.FIRST_TOKEN_TIMEOUT_S):
                await self._engine.wake_up()
                await self._engine.probe()
            self._engine.status.state = self._engine.status.stage = "ready"
        except (EngineError, TimeoutError):
            await process.kill()

    async def _wake_if_napping(self) -> None:
        async with self._telling:
            if self._wanted.is_set() and self._napping and self._process and self._process.running:
                await self._wake_from_nap(self._process)

    async def wake(self) -> None:
        """Wake, or start anew, and wait until the engine is ready or has failed to be; its status says which."""
        status = self._engine.status
        restarts = status.restarts
        self._want(True, self._held)
        await self._wake_if_napping()
        while status.state == "asleep" and status.restarts == restarts:
            await asyncio.sleep(WAKE_INTERVAL_S)

    async def run(self) -> None:
        status = self._engine.status
        tries = 0
        while True:
            if not self._wanted.is_set():
                self._lie_down()
                await self._wanted.wait()
            reason = await self._live()
            if self._end_was_asked or self._held:
                continue
            tries = 0 if self._was_stable() else tries
            if tries == len(self._backoff.delays_s):
                break
            status.state, status.stage = "restarting", f"waiting {self._backoff.delays_s[tries]:g} s: {reason}"
            status.reason, status.progress, status.restarts = reason, 0.0, status.restarts + 1
            await self._wait(self._backoff.delays_s[tries])
            tries += 1
        status.state, status.reason = "failed", reason
        status.stage = f"gave up after {tries + 1} tries: {reason}"

    async def _wait(self, delay_s: float) -> None:
        """For so long, or until an operator is in a hurry."""
        self._hurry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()

    async def _live(self) -> str:
        """One life, from start to death; returns the cause of death in plain words."""
        self._ready_at = self._process = None
        self._napping = self._end_was_asked = False
        try:
            async with self._start_slots:
                if self._memory:
                    await self._memory.require_room()
                if self._wanted.is_set():
                    self._process = await self._fork_server.fork(self._arguments, self._folder, self._log)
                if self._process is None or not self._wanted.is_set():
                    self._end_was_asked = True
                    return "not wanted"
                await self._load(self._process)
            return await self._watch(self._process)
        except (EngineError, ConfigError) as error:
            return str(error)
        except OSError as error:
            # A full disk takes neither its log nor its folder.
            return f"it could not be started: {error}"
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
        # One that wakes is still asleep, and its callers wait.
        if status.state != "asleep":
            status.state = self._starting
        countdown = Countdown(self._start_times.last() if self._start_times else None)
        await startup.load(self._engine, process, countdown)
        if self._end_was_asked or self._held:
            raise EngineBroke("it is not wanted any more")
        # Later lives are forked from what is there: they take less time than the start of a server.
        if self._start_times and not self._was_up:
            self._start_times.keep(countdown.took_s)
        self._was_up, self._ready_at = True, time.monotonic()
        status.state, status.stage, status.progress, status.reason = "ready", "ready", 1.0, None

    async def _watch(self, process: EngineProcess) -> str:
        """Until the engine is dead; returns how that showed."""
        try:
            while True:
                # Not wait_for, here and elsewhere: on Python 3.11 it loses a cancellation that comes with the end.
                await process.wait(HEALTH_INTERVAL_S)
                if not process.running:
                    return f"its process ended: {process.reason()}"
                if cause := await self._health.look():
                    return cause
        finally:
            await self._health.rest()

    def _was_stable(self) -> bool:
        return self._ready_at is not None and time.monotonic() - self._ready_at > self._backoff.stable_s
