"""The life of one engine: start, watch, die, back off, start again, give up; sleep, in turns or as an operator asks."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from cappella.engines import failures, memory_use, startup
from cappella.engines.base import EngineServer
from cappella.engines.gpu_memory import COMMAND_TIMEOUT_S
from cappella.engines.health import Health
from cappella.engines.life import Life
from cappella.engines.process.process import EngineProcess, ForkServer
from cappella.engines.reconciler import SleepReason, Wishes, step, transition
from cappella.engines.spec import EngineSpec
from cappella.engines.start_times import Countdown
from cappella.engines.status import ACTIONS, Action
from cappella.errors import ConfigError, EngineBroke, EngineError

WAKE_INTERVAL_S = 0.1


class Lifecycle:
    """Keeps one engine as it is wanted until cancelled, or until its tries are used up.

    Wishes are one thing, and what the process does another; `_reconcile` leads from one to the other.
    """

    def __init__(
        self, engine: EngineServer, fork_server: ForkServer, spec: EngineSpec, start_slots: asyncio.Semaphore
    ) -> None:
        self._engine = engine
        self._status = engine.status
        self._fork_server = fork_server
        self._spec = spec
        self._start_slots = start_slots
        self._health = Health(engine, spec.hung_after_s)
        self._wishes = Wishes()
        self._wishes_changed = asyncio.Event()
        self._life = Life()
        # One at a time tells the engine to sleep, to wake or to end.
        self._telling = asyncio.Lock()

    @property
    def log(self) -> Path:
        """Where the engine's last words stand."""
        return self._life.process.log if self._life.process else self._spec.log

    def last_words(self) -> list[str]:
        """The end of the engine's log, where the reason of a failed start stands."""
        return self._life.process.last_words() if self._life.process else []

    @property
    def actions(self) -> Sequence[Action]:
        """What an operator may ask for now; nothing while an earlier wish is being carried out."""
        state = self._status.state
        over = state == "stopped" and not self._wishes.stopped
        return () if over or self._telling.locked() else ACTIONS[state]

    @property
    def process_group(self) -> int | None:
        """Of all the engine's processes; None where there are none."""
        process = self._life.running_process
        return process.keeper_pid if process else None

    def kill_group(self) -> None:
        """End all the engine's processes, and wait for nothing."""
        if process := self._life.running_process:
            process.kill_group()

    def sleep_at_first(self) -> None:
        """Start nothing until `wake`."""
        self._wish(self._wishes.with_sleep("turn"))

    async def sleep(self, reason: SleepReason = "turn") -> None:
        """Give the memory back: by vLLM's own sleep where that is seen to free it, else by its end. Calls wake it."""
        in_place = self._may_sleep_in_place
        self._wish(self._wishes.with_sleep(reason))
        if self._status.state in ("ready", "unhealthy"):
            self._rest()
        await self._reconcile(in_place)

    async def wake(self, reason: SleepReason = "turn") -> None:
        """Wake, or start anew, and wait until the engine is ready or has failed to be; its status says which."""
        restarts = self._status.restarts
        self._wish(self._wishes.without_sleep(reason))
        await self._reconcile()
        while self._status.state == "asleep" and self._status.restarts == restarts:
            await asyncio.sleep(WAKE_INTERVAL_S)

    async def stop(self) -> None:
        """An operator's sleep: no call, no turn and no crash wakes it until `resume`. Calls under way fail."""
        in_place = self._may_sleep_in_place
        self._wish(self._wishes.with_stop(True))
        self._rest()
        await self._reconcile(in_place, cut=True)

    async def resume(self) -> None:
        """Undo `stop`: it wakes, or waits for its turn."""
        self._wish(self._wishes.with_stop(False))
        if self._wishes.desired == "running":
            self._begin_anew()
        else:
            self._rest()
        await self._reconcile()

    async def restart(self) -> None:
        """Another life at once, in place of this one or of the wait for it. Calls under way fail; no try is used up."""
        self._begin_anew()
        self._status.restarts_asked += 1
        self._wishes_changed.set()
        async with self._telling:
            process = self._life.running_process
            if process and self._life.observed in ("starting", "up"):
                await self._end(process, cut=True)

    def reset_failures(self) -> None:
        """Ready to `run` once more after it was given up."""
        self._status.reason = None
        self._begin_anew()

    async def run(self) -> None:
        tries = 0
        while True:
            if self._wishes.desired != "running":
                self._rest()
                await self._until(lambda: self._wishes.desired == "running")
            reason = await self._live()
            if self._life.observed == "ending" or self._wishes.desired != "running":
                continue
            tries = 0 if self._life.was_stable(self._spec.backoff.stable_s) else tries
            mistaken = self._life.ready_at is None and failures.is_mistake(self._status, reason, self._life.process)
            hopeless = mistaken or tries == len(self._spec.backoff.delays_s)
            failures.remember(self._status, reason, self._life.process)
            if hopeless:
                break
            await self._back_off(self._spec.backoff.delays_s[tries], reason)
            tries += 1
        transition(self._status, "failed", f"gave up after {tries + 1} tries: {reason}", reason)

    async def _back_off(self, delay_s: float, reason: str) -> None:
        """For so long, or until an operator asks for a restart, or for no more."""
        self._status.restarts += 1
        transition(self._status, "restarting", f"waiting {delay_s:g} s: {reason}", reason)
        asked = self._status.restarts_asked
        await self._until(lambda: self._status.restarts_asked != asked or self._wishes.desired != "running", delay_s)

    def _wish(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._wishes_changed.set()

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Of what is wished."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._wishes_changed.clear()
                    await self._wishes_changed.wait()

    def _begin_anew(self) -> None:
        transition(self._status, self._starting, "waiting for its turn")

    def _rest(self) -> None:
        """Show that it does not run, and why."""
        state: Literal["asleep", "stopped"] = "stopped" if self._wishes.stopped else "asleep"
        transition(self._status, state, self._wishes.stage)

    @property
    def _starting(self) -> Literal["loading", "restarting"]:
        """An engine that was ready once is never again "loading": without its judge a run degrades instead of being refused."""
        return "restarting" if self._life.engine_was_ready or self._status.restarts else "loading"

    @property
    def _may_sleep_in_place(self) -> bool:
        memory = self._spec.memory
        return self._status.state == "ready" and memory is not None and memory.nap_frees_bytes is not None

    async def _reconcile(self, in_place: bool = False, cut: bool = False) -> None:
        """Lead a process to what is wanted now; a start is the business of `run`. `cut` breaks calls under way off."""
        async with self._telling:
            process = self._life.running_process
            if process is None:
                return
            match step(self._wishes.desired, self._life.observed):
                case "wake":
                    await self._wake_in_place(process)
                case "sleep" if in_place:
                    await self._sleep_in_place(process, cut)
                case "sleep" | "end":
                    await self._end(process, cut)

    async def _sleep_in_place(self, process: EngineProcess, cut: bool) -> None:
        """vLLM's own sleep; the end, where the memory is not seen to come back."""
        self._life.observed = "asleep"
        if cut:
            await self._engine.close()
        await self._health.rest()
        freed = self._spec.memory is not None and await self._spec.memory.nap(self._engine)
        # A process that has died meanwhile is seen by `_watch`.
        if not freed and process.running:
            await self._end(process, cut=False)

    async def _wake_in_place(self, process: EngineProcess) -> None:
        """It is awake when it answers. If it does not, it is ended, and starts anew."""
        self._life.observed = "up"
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S + startup.FIRST_TOKEN_TIMEOUT_S):
                await self._engine.wake_up()
                await self._engine.probe()
        except (EngineError, TimeoutError):
            await process.kill()
            return
        # Whatever was wished meanwhile has been shown already, and waits to be done.
        if self._wishes.desired == "running":
            transition(self._status, "ready", "ready")

    async def _end(self, process: EngineProcess, cut: bool) -> None:
        """However it ends from here on, it has not crashed."""
        self._life.observed = "ending"
        if cut:
            await self._engine.close()
        await self._health.rest()
        await process.stop()

    async def _live(self) -> str:
        """One life, from start to death; returns the cause of death in plain words."""
        life = self._life = self._life.next()
        self._engine.circuit_breaker.begin_life()
        try:
            async with self._start_slots:
                await self._fork(life)
                if life.process is None or life.observed == "ending":
                    return "not wanted"
                await self._load(life, life.process)
            return await self._watch(life.process)
        except (EngineError, ConfigError) as error:
            return str(error)
        except OSError as error:
            # A full disk takes neither its log nor its folder.
            return f"it could not be started: {error}"
        except asyncio.CancelledError:
            transition(self._status, "stopped", "stopped")
            if life.process:
                await life.process.stop()
            raise
        finally:
            if life.process:
                await life.process.kill()
            await self._engine.close()

    async def _fork(self, life: Life) -> None:
        """Unless it is not wanted any more. Raises EngineBroke where its GPUs have no room."""
        if self._spec.memory:
            await self._spec.memory.require_room()
        if self._wishes.desired == "running":
            life.process = await self._fork_server.fork(self._spec.arguments, self._spec.folder, self._spec.log)
            failures.follow_log(self._status, self._spec.log)
        life.observed = "starting" if self._wishes.desired == "running" else "ending"

    async def _load(self, life: Life, process: EngineProcess) -> None:
        """Until a first token has come back. Raises EngineBroke with the reason from the log."""
        # One that wakes is still asleep, and its callers wait.
        if self._status.state != "asleep":
            transition(self._status, self._starting, self._status.stage)
        start_times = self._spec.start_times
        countdown = Countdown(start_times.last() if start_times else None)
        held_bytes = partial(memory_use.held_bytes, on_gpus=self._spec.memory is not None)
        progress = startup.Progress(process, held_bytes, self._spec.stalled_after_s)
        try:
            await startup.load(self._engine, process, countdown, progress)
        except startup.StartStalled:
            if process.keeper_pid is None:
                # It was never forked: what hangs is the import, and would hang for every engine after this.
                await self._fork_server.close()
            raise
        if life.observed == "ending" or self._wishes.desired == "stopped":
            raise EngineBroke("it is not wanted any more")
        # Later lives are forked from what is there: they take less time than the start of a server.
        if start_times and not life.comes_back:
            start_times.keep(countdown.took_s)
        life.observed, life.ready_at = "up", time.monotonic()
        transition(self._status, "ready", "ready")

    async def _watch(self, process: EngineProcess) -> str:
        """Until the engine is dead; returns how that showed."""
        try:
            while True:
                # Not wait_for, here and elsewhere: on Python 3.11 it loses a cancellation that comes with the end.
                await process.wait(self._spec.health_interval_s)
                if not process.running:
                    return f"its process ended: {await process.reason()}"
                if cause := await self._health.look():
                    return await failures.cause_of_end(process, cause)
                process.note_well()
        finally:
            await self._health.rest()
