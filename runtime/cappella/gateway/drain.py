"""Who is inside while a gateway, or a config that another has replaced, comes to its end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from cappella.errors import ShuttingDown


class InFlight:
    """Once they close nobody else comes in, and who is not out in time is cut: then there is a `reason`."""

    def __init__(self) -> None:
        self._inside: dict[object, Callable[[], object]] = {}
        self._closed = False
        self.reason: ShuttingDown | None = None
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @contextmanager
    def passed(self, cut: Callable[[], object], staying: bool = False) -> Iterator[None]:
        """From the way in to the way out; `cut` is called on who stays too long.

        Raises ShuttingDown if they are closed, but not for one who is inside and `staying`.
        """
        if self._closed and not staying:
            raise ShuttingDown("This server is about to stop.")
        record = object()
        self._inside[record] = cut
        try:
            yield
        finally:
            del self._inside[record]
            self._changed.set()

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """The same for what one task does. Raises ShuttingDown also where it was cut."""
        try:
            async with asyncio.timeout(None) as time:
                now = asyncio.get_running_loop().time
                with self.passed(lambda: time.reschedule(now())):
                    yield
        except TimeoutError as error:
            if not time.expired():
                raise
            raise self.reason or error from error

    async def close(self, within_s: float) -> int:
        """Wait until everybody is out, and cut those who are not by then; returns how many were."""
        self._closed = True
        try:
            async with asyncio.timeout(within_s):
                await self._until_empty()
            return 0
        except TimeoutError:
            late = list(self._inside.values())
        self.reason = ShuttingDown("The time to finish was over: this server stops, or serves another config now.")
        for cut in late:
            cut()
        await self._until_empty()
        return len(late)

    async def _until_empty(self) -> None:
        while self._inside:
            self._changed.clear()
            await self._changed.wait()
