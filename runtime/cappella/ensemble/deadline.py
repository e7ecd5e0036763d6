"""The time of one run: what is left of it, and how much of that is the panel's."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

JUDGE_SHARE = 0.25
"""The share of the run's deadline that a panel with its quorum leaves to the judge, even if other members are late."""


class Deadline:
    """The deadline of a run that began at `began_at`, on the monotonic clock, and may take `limit_s`."""

    def __init__(self, began_at: float, limit_s: float) -> None:
        self._began_at = began_at
        self._limit_s = limit_s
        self._timeout: asyncio.Timeout | None = None

    @property
    def remaining_s(self) -> float:
        """The time left until the run's deadline."""
        return max(0.0, self._limit_s - (time.monotonic() - self._began_at))

    @property
    def panel_remaining_s(self) -> float:
        """The time left until the judge's share of the deadline begins."""
        return max(0.0, self.remaining_s - JUDGE_SHARE * self._limit_s)

    def limits_of_round_s(self, rounds_left: int, is_quorate: bool) -> tuple[float, float]:
        """The time for the next of so many rounds, and the time once it has a quorum.

        Only a first round may use the judge's share, up to the quorum: below it there is nothing to judge.
        """
        quorate_limit_s = self.panel_remaining_s / rounds_left
        return quorate_limit_s if is_quorate else self.remaining_s / rounds_left, quorate_limit_s

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Raises TimeoutError at the run's deadline, except while it is `suspended`."""
        async with asyncio.timeout(self.remaining_s) as self._timeout:
            yield

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """For a round of the panel, which has its own limits: a TimeoutError there would lose the answers that have arrived."""
        if self._timeout is None:
            yield
            return
        self._timeout.reschedule(None)
        try:
            yield
        finally:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self.remaining_s)
