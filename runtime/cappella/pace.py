"""How fast something goes and how long it may take yet, in figures that can be believed. Standard library only."""

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 15.0
"""What was done in the last so many seconds is the speed; what was done before says little of what is to come."""
TRUSTED_AFTER_S = 2.0


class Pace:
    """The speed of late. What was there before the first `note` was not work, and does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: deque[tuple[float, float]] = deque()

    def note(self, done: float) -> None:
        """So much is done by now."""
        now = self._clock()
        self._noted.append((now, done))
        while len(self._noted) > 2 and now - self._noted[1][0] > WINDOW_S:
            self._noted.popleft()

    @property
    def per_s(self) -> float | None:
        """None while nobody can know."""
        if not self._noted:
            return None
        (began_at, before), done = self._noted[0], self._noted[-1][1]
        taken_s = self._clock() - began_at
        return None if taken_s < TRUSTED_AFTER_S else max(0.0, done - before) / taken_s

    def left_s(self, left: float) -> float | None:
        """None while nobody can know, and while it stands still."""
        return left / per_s if (per_s := self.per_s) else None


def duration(seconds: float) -> str:
    """As exact as a person wants to know it: 0.8 s, 12 s, 3 min, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def remaining(seconds: float | None) -> str:
    """Never more exact than a guess is: whole seconds, in fives from ten on, then minutes."""
    if seconds is None:
        return ""
    whole_s = max(1, round(seconds))
    if whole_s < 60:
        return f"about {whole_s if whole_s < 10 else 5 * round(whole_s / 5)} s left"
    return f"about {duration(max(seconds, 120))} left" if seconds > 90 else "about a minute left"
