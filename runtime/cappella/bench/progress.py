"""How far a bench is, and how long it will take yet by what its batches have taken so far."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean

from cappella.pace import remaining

Say = Callable[[str], None]


class Progress:
    """Of one load and size, `about` it in words: so many rounds, in each of which every system has its turn.

    What is left is not guessed before each system has had one: until then nobody knows what the slowest takes.
    """

    def __init__(
        self,
        about: str,
        systems: Sequence[str],
        rounds: int,
        show: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._about = about
        self._systems = systems
        self._rounds = rounds
        self._show = show
        self._clock = clock
        self._took_s: dict[str, list[float]] = defaultdict(list)

    def warms_up(self, system: str) -> None:
        self._show(f"{self._about}: {system} warms up")

    @contextmanager
    def batch(self, system: str) -> Iterator[None]:
        """One turn of a system, shown before it and timed."""
        left = remaining(self._left_s)
        turn = len(self._took_s[system]) + 1
        self._show(f"{self._about}: round {turn} of {self._rounds}, {system}{f'; {left}' if left else ''}")
        began_at = self._clock()
        yield
        self._took_s[system].append(self._clock() - began_at)

    @property
    def _left_s(self) -> float | None:
        took = [self._took_s[system] for system in self._systems]
        if not all(took):
            return None
        return sum((self._rounds - len(took_s)) * mean(took_s) for took_s in took)
