"""Health check of a running engine: its server says so, and it generates tokens when asked."""

import asyncio
import time
from collections.abc import Callable

from cappella.engines.base import EngineStats, SingleServer
from cappella.engines.reconciler import transition
from cappella.errors import EngineError

QUIET_SHARE = 1 / 6
"""Of `hung_after_s`: an engine without output for so long is probed, and may take as long to answer the probe."""
WORKING_SHARE = 0.03
"""Of a CPU, used by a core that computes; one that hangs waits, and uses less, in the kernel's ticks of 10 ms."""
LONGEST_STEP = 10
"""Times `hung_after_s`: a core that computes for so long without a step is taken for a loop without an end."""


class Health:
    """Checks one engine and sets its status to `ready` or `unhealthy`; an unhealthy one gets no new calls.

    A server can answer /health while its core hangs, so an engine without output for a while is probed for a token, and
    so is one whose calls break. It counts as hung after `hung_after_s` without a token or a scheduler step. An engine
    that answers its probes is never replaced: what breaks is then due to the requests.

    `core_seconds` is the CPU time of its core, None if that tells nothing, as on a GPU. On a CPU one step can take long:
    a core that computes is slow, which is no reason to refuse calls.
    """

    def __init__(
        self, engine: SingleServer, hung_after_s: float, core_seconds: Callable[[], float | None] = lambda: None
    ) -> None:
        self._engine = engine
        self._core_seconds = core_seconds
        self._hung_after_s = hung_after_s
        self._quiet_s = hung_after_s * QUIET_SHARE
        self._suspect_since: float | None = None
        self._stepped_at = self._computed_at = 0.0
        self._last_core_seconds: tuple[float, float] | None = None
        self._step_counters: EngineStats | None = None
        self._probe: asyncio.Task[str] | None = None

    async def check(self) -> str | None:
        """One check, to be repeated every second or so; returns why the engine must be replaced, if it must."""
        try:
            if not await self._engine.healthy():
                return "engine core died"
            # That came over a connection of before: no further call could be made.
            if self._engine.socket_is_gone:
                return "its socket was deleted"
            answers = True
        except EngineError:
            answers = False
        if self._suspect_since is None and (
            not answers or self._engine.circuit_breaker.is_open or self._silent_for_s() > self._quiet_s
        ):
            self._suspect_since = time.monotonic()
        # A core at work is no excuse for a server that does not answer.
        if self._suspect_since is not None and answers:
            await self._look_for_work()
            await self._look_for_steps()
        if self._engine.status.state not in ("ready", "unhealthy"):
            await self.pause()
        return None if self._suspect_since is None else self._diagnose(self._suspect_since)

    async def pause(self) -> None:
        """Cancel a probe, and forget what was seen, until the next check."""
        probe, self._probe = self._probe, None
        self._forget()
        if probe:
            probe.cancel()
            await asyncio.wait({probe})

    def _diagnose(self, suspect_since: float) -> str | None:
        """Probe a suspect engine, or use the probe's result; returns why the engine must be replaced, if it must."""
        problem = ""
        if self._probe and self._probe.done():
            problem = self._probe.result()
            self._probe = None
            if not problem:
                self._recover()
                return None
        self._probe = self._probe or asyncio.create_task(self._probe_problem())
        suspect_for_s = time.monotonic() - suspect_since
        silent_s = min(self._silent_for_s(), suspect_for_s)
        if problem and suspect_for_s > self._hung_after_s:
            return f"no token when probed: {problem}"
        if silent_s > self._hung_after_s - self._quiet_s:
            return f"hung: no token and no scheduler step for {self._hung_after_s:g} s"
        if problem:
            self._mark_unhealthy(problem)
        elif silent_s > self._quiet_s:
            self._mark_unhealthy(f"no token and no scheduler step for {self._quiet_s:g} s")
        return None

    def _recover(self) -> None:
        self._forget()
        self._engine.circuit_breaker.close()
        transition(self._engine.status, "ready", "ready")

    def _forget(self) -> None:
        self._suspect_since, self._step_counters, self._last_core_seconds = None, None, None

    def _mark_unhealthy(self, reason: str) -> None:
        transition(self._engine.status, "unhealthy", reason)

    async def _look_for_steps(self) -> None:
        try:
            step_counters = (await self._engine.stats()).step_counters
        except EngineError:
            return
        # The first reading has nothing to be compared with.
        if self._step_counters and step_counters != self._step_counters:
            self._stepped_at = time.monotonic()
        self._step_counters = step_counters

    async def _look_for_work(self) -> None:
        # Files of all processes are read: not in the event loop.
        seconds = await asyncio.to_thread(self._core_seconds)
        if seconds is None:
            return
        now = time.monotonic()
        if self._last_core_seconds:
            at, before = self._last_core_seconds
            if seconds - before >= WORKING_SHARE * (now - at) > 0:
                self._computed_at = now
        self._last_core_seconds = now, seconds

    def _silent_for_s(self) -> float:
        """Seconds since the last token or scheduler step, or since the core computed, if its step may still end."""
        now, heard_at = time.monotonic(), max(self._engine.circuit_breaker.last_output_at, self._stepped_at)
        may_end = now - heard_at <= LONGEST_STEP * self._hung_after_s
        return now - (max(heard_at, self._computed_at) if may_end else heard_at)

    async def _probe_problem(self) -> str:
        """Why the probe gave no token; empty if it gave one."""
        try:
            await self._engine.probe()
        except EngineError as error:
            return str(error)
        return ""
