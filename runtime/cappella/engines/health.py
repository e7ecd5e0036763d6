"""Whether a running engine is well: its server says so, its calls end, and it makes tokens when it is asked for one."""

import asyncio
import time

from cappella.engines.base import EngineFigures, EngineServer
from cappella.engines.reconciler import transition
from cappella.errors import EngineError

QUIET_SHARE = 1 / 6
"""Of `hung_after_s`: an engine that was quiet for so long is asked for a token, and may take as long to give it."""
RELAPSES = 3


class Health:
    """Looks at one engine, and keeps its status at `ready` or `unhealthy`: then it takes no calls, those under way go on.

    A server answers /health while its core hangs, so that an engine from which nothing came for a while is asked for
    a token. It hangs if for `hung_after_s` neither a token nor a step of its core was seen.
    """

    def __init__(self, engine: EngineServer, hung_after_s: float) -> None:
        self._engine = engine
        self._hung_after_s = hung_after_s
        self._quiet_s = hung_after_s * QUIET_SHARE
        self._ill_since: float | None = None
        self._stepped_at = 0.0
        self._steps: EngineFigures | None = None
        self._probe: asyncio.Task[str] | None = None

    async def look(self) -> str | None:
        """One look, to be repeated every second or so; returns the cause of death of an engine that is dead."""
        try:
            if not await self._engine.healthy():
                return "its engine core died"
            answers = True
        except EngineError:
            answers = False
        if self._ill_since is None and (
            not answers or self._engine.circuit_breaker.broken or self._quiet_for() > self._quiet_s
        ):
            self._ill_since = time.monotonic()
        if self._ill_since is not None and answers:
            await self._look_for_steps()
        if self._engine.status.state not in ("ready", "unhealthy"):
            await self.rest()
        return None if self._ill_since is None else self._ask_for_a_token(self._ill_since)

    async def rest(self) -> None:
        """Ask for nothing until the next look."""
        probe, self._probe = self._probe, None
        self._ill_since, self._steps = None, None
        if probe:
            probe.cancel()
            await asyncio.wait({probe})

    def _ask_for_a_token(self, ill_since: float) -> str | None:
        """Begin to, or see what came of it."""
        problem = ""
        if self._probe and self._probe.done():
            problem = self._probe.result()
            self._probe = None
            if not problem:
                return self._recover()
        self._probe = self._probe or asyncio.create_task(self._problem())
        ill_for_s = time.monotonic() - ill_since
        silent_s = min(self._quiet_for(), ill_for_s)
        if problem and ill_for_s > self._hung_after_s:
            return f"it gave no token when asked for one: {problem}"
        if silent_s > self._hung_after_s - self._quiet_s:
            return f"it hung: no token and no step of its core for {self._hung_after_s:g} s"
        if self._engine.circuit_breaker.broken or problem:
            self._become_unhealthy(problem or "its last calls broke")
        elif silent_s > self._quiet_s:
            self._become_unhealthy("no token and no step of its core came lately")
        return None

    def _recover(self) -> str | None:
        status, circuit_breaker = self._engine.status, self._engine.circuit_breaker
        self._ill_since, self._steps = None, None
        if circuit_breaker.broken:
            circuit_breaker.try_again()
            if circuit_breaker.relapses > RELAPSES:
                return "its calls break, though it gives a token when asked for one"
        transition(status, "ready", "ready")
        return None

    def _become_unhealthy(self, why: str) -> None:
        transition(self._engine.status, "unhealthy", why)

    async def _look_for_steps(self) -> None:
        try:
            steps = (await self._engine.figures()).steps
        except EngineError:
            return
        # The first look has nothing to be compared with.
        if self._steps and steps != self._steps:
            self._stepped_at = time.monotonic()
        self._steps = steps

    def _quiet_for(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - max(self._engine.circuit_breaker.heard_at, self._stepped_at)

    async def _problem(self) -> str:
        """What kept a token from coming; empty if one came."""
        try:
            await self._engine.probe()
        except EngineError as error:
            return str(error)
        return ""
