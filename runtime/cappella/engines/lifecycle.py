"""Keeps one engine running, asleep or stopped as its supervisor and operators want, and restarts it after a crash."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cappella.background import background
from cappella.engines import core_time, last_failure
from cappella.engines.base import SingleServer
from cappella.engines.health import Health
from cappella.engines.idleness import Idleness
from cappella.engines.launch import Launch
from cappella.engines.launcher import Launcher, ServerProcess
from cappella.engines.reconciler import WAKING, Intent, SleepReason, step, transition
from cappella.engines.spec import EngineSpec
from cappella.engines.status import ACTIONS, Action
from cappella.errors import ConfigError, EngineBroke, EngineError

WAKE_POLL_S = 0.1


class Lifecycle:
    """One engine, from its first launch until `run` is cancelled or every restart has failed.

    `_intent` is what is wanted, `_launch.observed` what the process does; `_reconcile` takes a running process from
    one to the other, and `run` does all launches. With `idleness` the engine sleeps when that is over due.
    """

    def __init__(
        self,
        engine: SingleServer,
        launcher: Launcher,
        spec: EngineSpec,
        start_slots: asyncio.Semaphore,
        idleness: Idleness | None = None,
    ) -> None:
        self._engine = engine
        self._status = engine.status
        self._launcher = launcher
        self._spec = spec
        self._start_slots = start_slots
        self._idleness = idleness
        self._health = Health(engine, spec.hung_after_s, self._core_seconds)
        self._intent = Intent()
        self._intent_changed = asyncio.Event()
        self._launch = Launch(engine, launcher, spec, self._health)
        # Commands to sleep, wake and stop reach the process one at a time.
        self._command_lock = asyncio.Lock()

    @property
    def log(self) -> Path:
        """The log that shows why the engine failed: its own, or its launcher's if it never began."""
        return self._launch.process.log if self._launch.process else self._spec.log

    def log_excerpt(self) -> list[str]:
        """The lines of that log that end with the error."""
        return self._launch.process.log_excerpt() if self._launch.process else []

    @property
    def actions(self) -> Sequence[Action]:
        """What an operator may ask for now; nothing while an earlier action is in progress."""
        state = self._status.state
        shut_down = state == "stopped" and not self._intent.stopped
        if shut_down or self._command_lock.locked():
            return ()
        can_wake = state == "asleep" and self._intent.sleep_reasons == {"idle"}
        return (*ACTIONS[state], "wake") if can_wake else ACTIONS[state]

    @property
    def process_group(self) -> int | None:
        """The process group of the engine; None if it has no process."""
        process = self._launch.running_process
        return process.process_group if process else None

    def _core_seconds(self) -> float | None:
        """The CPU time of the engine's core; None on GPUs, where a core waits in a busy loop."""
        group = self.process_group
        return core_time.core_seconds(group) if group and self._spec.memory is None else None

    def kill_group(self) -> None:
        """Send SIGKILL to all the engine's processes, without waiting."""
        if process := self._launch.running_process:
            process.kill_group()

    def start_asleep(self) -> None:
        """Let `run` launch nothing until `wake`."""
        self._set_intent(self._intent.with_sleep("swap"))

    async def sleep(self, reason: SleepReason = "swap") -> None:
        """Free the memory: in place if the server can and does free it, else by stopping it. A call wakes it."""
        in_place = self._can_sleep_in_place
        self._set_intent(self._intent.with_sleep(reason))
        if self._status.state in ("ready", "unhealthy"):
            self._mark_not_running()
        await self._reconcile(in_place)

    async def wake(self, reason: SleepReason = "swap") -> None:
        """Wake or launch the engine, and wait until it is ready or has failed; its status says which.

        Returns at once while another reason to sleep is left, or an operator has stopped it.
        """
        status, began = self._status, time.monotonic()
        restarts, was_idle = status.restarts, "idle" in self._intent.sleep_reasons
        self._set_intent(self._intent.without_sleep(reason))
        if status.state == "asleep" and self._intent.desired == "running":
            transition(status, "asleep", WAKING)
        await self._reconcile()
        while self._intent.desired == "running" and status.state == "asleep" and status.restarts == restarts:
            await asyncio.sleep(WAKE_POLL_S)
        if was_idle and status.state == "ready":
            status.wakes, status.last_wake_s = status.wakes + 1, time.monotonic() - began

    async def stop(self) -> None:
        """An operator's sleep: no call, swap or crash wakes the engine until `resume`. Calls in flight fail."""
        in_place = self._can_sleep_in_place
        self._set_intent(self._intent.with_stop(True))
        self._mark_not_running()
        await self._reconcile(in_place, abort_calls=True)

    async def resume(self) -> None:
        """Undo `stop`, or the sleep of an idle engine: it wakes, or sleeps on while it is swapped out."""
        if not self._intent.stopped:
            await self.wake("idle")
            return
        self._set_intent(self._intent.with_stop(False).without_sleep("idle"))
        if self._intent.desired == "running":
            self._mark_starting()
        else:
            self._mark_not_running()
        await self._reconcile()

    async def restart(self) -> None:
        """Launch anew at once, also during a back-off. Calls in flight fail; it does not count as a failed start."""
        self._mark_starting()
        self._status.restarts_asked += 1
        self._intent_changed.set()
        async with self._command_lock:
            process = self._launch.running_process
            if process and self._launch.observed in ("starting", "up"):
                await self._launch.stop(process, abort_calls=True)

    def reset_failures(self) -> None:
        """Prepare a failed engine for another `run`."""
        self._status.reason = None
        self._mark_starting()

    async def run(self) -> None:
        """Launch the engine whenever it is wanted; returns when every restart has failed, or another cannot help."""
        try:
            async with background(self._sleep_when_idle()):
                await self._run_launches()
        except asyncio.CancelledError:
            # Also where it has no process: whoever waits for its wake waits no longer.
            transition(self._status, "stopped", "stopped")
            raise
        finally:
            # A command under way may have opened a connection after the last process ended.
            async with self._command_lock:
                await self._engine.close()

    async def _sleep_when_idle(self) -> None:
        while self._idleness:
            await asyncio.sleep(self._spec.health_interval_s)
            if self._status.state != "ready" or self._command_lock.locked():
                self._idleness.restart()
            elif self._idleness.is_over_due:
                await self.sleep("idle")

    async def _run_launches(self) -> None:
        tries = 0
        while True:
            if self._intent.desired != "running":
                self._mark_not_running()
                await self._wait_until(lambda: self._intent.desired == "running")
            reason = await self._run_process()
            launch = self._launch
            was_ready = launch.engine_was_ready
            mistaken = await last_failure.is_config_error(self._status, reason, launch.process, was_ready)
            # A sleeper that died is no crash, also if a call wants it before its end is noticed.
            if launch.observed in ("ending", "asleep") or self._intent.desired != "running":
                continue
            tries = 0 if launch.was_stable(self._spec.backoff.stable_s) else tries
            gives_up = tries == len(self._spec.backoff.delays_s) or (mistaken and launch.ready_at is None)
            last_failure.record(self._status, reason, launch.process)
            if gives_up:
                break
            await self._back_off(self._spec.backoff.delays_s[tries], reason)
            tries += 1
        count = "1 try" if tries == 0 else f"{tries + 1} tries"
        transition(self._status, "failed", f"gave up after {count}: {reason}", reason)

    async def _back_off(self, delay_s: float, reason: str) -> None:
        """Wait, or return early if an operator asks for a restart or the engine is no longer wanted."""
        self._status.restarts += 1
        transition(self._status, "restarting", f"waiting {delay_s:g} s: {reason}", reason)
        asked = self._status.restarts_asked
        await self._wait_until(
            lambda: self._status.restarts_asked != asked or self._intent.desired != "running", delay_s
        )

    def _set_intent(self, intent: Intent) -> None:
        self._intent = intent
        self._intent_changed.set()

    async def _wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait for a condition on the intent, or for `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._intent_changed.clear()
                    await self._intent_changed.wait()

    def _mark_starting(self) -> None:
        transition(self._status, self._starting_state, "waiting to start")

    def _mark_not_running(self) -> None:
        """Set the status to asleep or stopped, with the reason."""
        state: Literal["asleep", "stopped"] = "stopped" if self._intent.stopped else "asleep"
        transition(self._status, state, self._intent.stage)

    @property
    def _starting_state(self) -> Literal["loading", "restarting"]:
        """An engine that was ready once restarts: without its judge a run then degrades instead of being refused."""
        return "restarting" if self._launch.engine_was_ready or self._status.restarts else "loading"

    @property
    def _can_sleep_in_place(self) -> bool:
        memory = self._spec.memory
        return self._status.state == "ready" and memory is not None and memory.sleep is not None

    async def _reconcile(self, in_place: bool = False, abort_calls: bool = False) -> None:
        """Take a running process to what is wanted now."""
        async with self._command_lock:
            launch = self._launch
            process = launch.running_process
            if process is None:
                return
            match step(self._intent.desired, launch.observed):
                case "wake":
                    # The intent may have changed meanwhile: its status is set already, its step is next.
                    if await launch.wake_in_place(process) and self._intent.desired == "running":
                        transition(self._status, "ready", "ready")
                case "sleep" if in_place:
                    await launch.sleep_in_place(process, abort_calls)
                case "sleep" | "end":
                    await launch.stop(process, abort_calls)

    async def _run_process(self) -> str:
        """One launch, from start to end; returns the cause of its end."""
        launch = self._launch = Launch(
            self._engine, self._launcher, self._spec, self._health, self._launch.engine_was_ready
        )
        self._engine.circuit_breaker.begin_launch()
        try:
            async with self._start_slots:
                process = await launch.start(lambda: self._intent.desired == "running")
                if process is None:
                    return "no longer wanted"
                await self._wait_until_ready(launch, process)
            return await launch.watch(process)
        except (EngineError, ConfigError) as error:
            return str(error)
        except OSError as error:
            # A full disk, for one, takes neither a log nor a folder.
            return f"could not be started: {error}"
        except asyncio.CancelledError:
            transition(self._status, "stopped", "stopped")
            if launch.process:
                await launch.process.stop()
            raise
        finally:
            if launch.process:
                await launch.process.kill()
            await self._engine.close()

    async def _wait_until_ready(self, launch: Launch, process: ServerProcess) -> None:
        """Raises EngineBroke with the reason from the log."""
        # An engine that wakes by a launch stays "asleep", and its callers wait.
        if self._status.state != "asleep":
            transition(self._status, self._starting_state, self._status.stage)
        countdown = await launch.wait_for_first_token(process)
        if launch.observed == "ending" or self._intent.desired == "stopped":
            raise EngineBroke("no longer wanted")
        launch.mark_ready(countdown)
        transition(self._status, "ready", "ready")
