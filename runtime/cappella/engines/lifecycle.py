"""The life of one engine: start, watch, die, back off, start again, give up; and, where engines take turns, sleep."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cappella.engines.health import Health
from cappella.engines.process import EngineProcess, ForkServer
from cappella.engines.vllm import VllmEngine
from cappella.errors import ConfigError, EngineBroke, EngineError

HEALTH_INTERVAL_S = 1.0
LOAD_INTERVAL_S = 0.1
START_TIMEOUT_S = 1800.0
FIRST_TOKEN_TIMEOUT_S = 300.0
NAP_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
ASLEEP = "asleep: another turn is awake"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each new try, in turn; an engine that was ready for `stable_s` begins anew."""

    delays_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    stable_s: float = 120.0


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What an engine's GPUs have free, on the fullest of them; what it needs there; and what its sleep must give back.

    With `nap_frees_bytes` None it cannot sleep without ending.
    """

    free_bytes: Callable[[], int]
    needs_bytes: int
    nap_frees_bytes: int | None = None


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
        memory: GpuMemory | None = None,
        hung_after_s: float = 60.0,
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
        self._napping = self._ended_to_sleep = False
        self._wanted = asyncio.Event()
        self._wanted.set()

    @property
    def log(self) -> Path:
        """Where the engine's last words stand."""
        return self._process.log if self._process else self._log

    def last_words(self) -> list[str]:
        """The end of the engine's log, where the reason of a failed start stands."""
        return self._process.last_words() if self._process else []

    def sleep_at_first(self) -> None:
        """Start nothing until `wake`."""
        self._wanted.clear()

    async def sleep(self) -> None:
        """Give the memory back: by vLLM's own sleep where it `naps` and the memory is seen to come back, else by its end."""
        status = self._engine.status
        naps = status.state == "ready" and self._memory and self._memory.nap_frees_bytes is not None
        self._wanted.clear()
        if status.state in ("ready", "unhealthy"):
            status.state, status.stage = "asleep", ASLEEP
        await self._health.rest()
        if self._process and self._process.running and not (naps and await self._fell_asleep()):
            # Dead meanwhile, it has been seen to be so.
            self._ended_to_sleep = self._process.running
            await self._process.stop()

    def _slept(self) -> str:
        """The end of a start that is not wanted any more."""
        self._ended_to_sleep = True
        return "not wanted"

    async def _fell_asleep(self) -> bool:
        assert self._memory
        enough_bytes = self._memory.free_bytes() + (self._memory.nap_frees_bytes or 0)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await self._engine.sleep()
        except (EngineError, TimeoutError):
            return False
        # /sleep has answered 200 while the memory stayed held.
        self._napping = await self._is_free(enough_bytes, NAP_TIMEOUT_S)
        return self._napping

    async def _is_free(self, enough_bytes: int, timeout_s: float) -> bool:
        """Wait until the GPUs have so much free; False if that does not come."""
        give_up_at = time.monotonic() + timeout_s
        while self._memory and self._memory.free_bytes() < enough_bytes:
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(LOAD_INTERVAL_S)
        return True

    async def _wake_from_nap(self, process: EngineProcess) -> None:
        """Awake is who answers. Whoever does not is ended, and starts anew."""
        self._napping = False
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S + FIRST_TOKEN_TIMEOUT_S):
                await self._engine.wake_up()
                await self._engine.probe()
            self._engine.status.state = self._engine.status.stage = "ready"
        except (EngineError, TimeoutError):
            await process.kill()

    async def wake(self) -> None:
        """Wake, or start anew, and wait until the engine is ready or has failed to be; its status says which."""
        status = self._engine.status
        restarts = status.restarts
        self._wanted.set()
        if self._napping and self._process and self._process.running:
            await self._wake_from_nap(self._process)
        while status.state == "asleep" and status.restarts == restarts:
            await asyncio.sleep(LOAD_INTERVAL_S)

    async def run(self) -> None:
        status = self._engine.status
        tries = 0
        while True:
            if not self._wanted.is_set():
                status.state, status.stage, status.progress = "asleep", ASLEEP, 0.0
                await self._wanted.wait()
            reason = await self._live()
            if self._ended_to_sleep:
                self._ended_to_sleep = False
                continue
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
        self._napping = self._ended_to_sleep = False
        try:
            async with self._start_slots:
                await self._until_room()
                if self._wanted.is_set():
                    self._process = await self._fork_server.fork(self._arguments, self._folder, self._log)
                if self._process is None or not self._wanted.is_set():
                    return self._slept()
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

    async def _until_room(self) -> None:
        """A GPU gives memory back some time after its process has ended. Raises EngineBroke if it does not."""
        if self._memory and not await self._is_free(self._memory.needs_bytes, ROOM_TIMEOUT_S):
            free, needs = (size / 2**30 for size in (self._memory.free_bytes(), self._memory.needs_bytes))
            raise EngineBroke(
                f"its GPU has {free:.1f} GiB free and it needs {needs:.1f}: another process holds the rest"
            )

    async def _load(self, process: EngineProcess) -> None:
        """Until a first token has come back. Raises EngineBroke with the reason from the log."""
        status = self._engine.status
        give_up_at = time.monotonic() + START_TIMEOUT_S
        # A restarting engine keeps that word, so that its judge role degrades instead of answering "still loading"; one
        # that wakes is still asleep, and its callers wait.
        if status.state != "asleep":
            status.state = "restarting" if status.restarts else "loading"
        while not await self._answers():
            if not process.running:
                raise EngineBroke(f"it did not start: {process.reason()}")
            if time.monotonic() > give_up_at:
                raise EngineBroke(f"it did not start within {START_TIMEOUT_S:g} s")
            status.stage, status.progress = process.stage()
            await asyncio.sleep(LOAD_INTERVAL_S)
        try:
            async with asyncio.timeout(FIRST_TOKEN_TIMEOUT_S):
                await self._engine.probe()
        except TimeoutError as error:
            raise EngineBroke(f"it gave no first token within {FIRST_TOKEN_TIMEOUT_S:g} s") from error
        self._ready_at = time.monotonic()
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

    async def _answers(self) -> bool:
        try:
            return await self._engine.healthy()
        except EngineError:
            return False

    def _was_stable(self) -> bool:
        return self._ready_at is not None and time.monotonic() - self._ready_at > self._backoff.stable_s
