"""What the calls of one server show of its health, under all the names that it is called by."""

import time

BREAKS_IN_A_ROW = 5


class CircuitBreaker:
    """`heard_at` (on the clock of `time.monotonic`) is when the last piece of any answer came.

    `broken` means that so many calls in a row broke that the next one would, too. `life` is that of the server's
    process: what is left of an earlier one says nothing of this.
    """

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        self.life = 0
        self.relapses = 0
        self._breaks = 0

    def begin_life(self) -> None:
        """Of another process: nothing is held against it, and it was heard just now."""
        self.life += 1
        self.relapses = self._breaks = 0
        self.hear()

    def hear(self) -> None:
        self.heard_at = time.monotonic()

    def count(self, ended_well: bool, life: int) -> None:
        """A call that is over, of the life that it began in."""
        if life != self.life:
            return
        self._breaks = 0 if ended_well else self._breaks + 1
        self.relapses = 0 if ended_well else self.relapses

    @property
    def broken(self) -> bool:
        return self._breaks >= BREAKS_IN_A_ROW

    def try_again(self) -> None:
        """Calls may come again; the first that breaks is enough now."""
        self._breaks = BREAKS_IN_A_ROW - 1
        self.relapses += 1
