"""Sleep of an engine that nobody uses (`sleep_after_s`), and its wake for the next call."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from cappella.engines.status import EngineStatus
from cappella.engines.waiting import Tell, told


class Idleness:
    """Counts the calls and runs that use one engine. `is_over_due` once there was none for `after_s`.

    `wake` is called when one begins while the engine sleeps; it returns when the engine is awake or has failed.
    """

    def __init__(self, after_s: float, status: EngineStatus, wake: Callable[[], Awaitable[None]]) -> None:
        self._after_s = after_s
        self._status = status
        self._wake = wake
        self._uses = 0
        self._since = time.monotonic()
        self._waking: asyncio.Task[None] | None = None

    @property
    def is_over_due(self) -> bool:
        """Whether the engine should sleep now."""
        return not self._uses and time.monotonic() - self._since >= self._after_s

    def restart(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    @contextmanager
    def keep_awake(self) -> Iterator[None]:
        """Uses the engine in this context: it does not fall asleep. If it sleeps it begins to wake; nobody waits here."""
        self._uses += 1
        self._begin_to_wake()
        try:
            yield
        finally:
            self._uses -= 1
            self.restart()

    @asynccontextmanager
    async def hold_awake(self, tell: Tell) -> AsyncIterator[None]:
        """The same for a call, which waits until the engine is awake or has failed."""
        with self.keep_awake():
            if waking := self._begin_to_wake():
                with told(tell, "asleep"):
                    # It goes on if this call is cancelled: others may wait for it, too.
                    await asyncio.wait({waking})
            yield

    def _begin_to_wake(self) -> "asyncio.Task[None] | None":
        if self._status.state != "asleep":
            return None
        if self._waking is None or self._waking.done():
            self._waking = asyncio.ensure_future(self._wake())
        return self._waking
