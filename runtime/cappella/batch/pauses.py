"""Pauses before what failed is tried again: they grow, and those who failed together do not try again together."""

import random

MAX_PAUSE_S = 300.0


def jittered(seconds: float) -> float:
    """Between three and five quarters of so many seconds."""
    return seconds * random.uniform(0.75, 1.25)


class Pauses:
    """The pauses after one error, and another: each is about twice as long as the one before."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._next_s = first_s

    def next_s(self) -> float:
        pause_s = jittered(self._next_s)
        self._next_s = min(2 * self._next_s, MAX_PAUSE_S)
        return pause_s

    def reset(self) -> None:
        """Something went well."""
        self._next_s = self._first_s
