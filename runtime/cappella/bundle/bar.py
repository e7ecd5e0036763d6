"""How far something is: a line that is drawn anew on a terminal, and now and then a plain line elsewhere.

Standard library only: on the far side Rich is not there yet.
"""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Self

from cappella.pace import Pace, remaining

BAR_CELLS = 24
REDRAW_S = 0.1
LINE_S = 30.0
"""Where no terminal watches, a log wants to know that it goes on, and not more."""


def human(size_bytes: float) -> str:
    """Decimal, as disks and media are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


class Bar:
    """One line on standard error, `total` long, in bytes unless `said` says else.

    It is never full before all is done, and says what is left only once the speed is known.
    """

    def __init__(
        self,
        doing: str,
        total: int,
        said: Callable[[float], str] = human,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.doing = doing
        self.total = total
        self.done = 0
        self._said = said
        self._clock = clock
        self._pace = Pace(clock)
        self._told_at = clock()
        self._is_watched = sys.stderr.isatty()

    def skip(self, amount: int) -> None:
        """So much was there already: it is done, and says nothing of the speed."""
        self.done += amount
        self._pace = Pace(self._clock)
        self._pace.note(self.done)

    def add(self, amount: int) -> None:
        """So much more is done; less, where something has to be done once more."""
        self.done += amount
        self._pace.note(self.done)
        if self.doing and self._clock() - self._told_at > (REDRAW_S if self._is_watched else LINE_S):
            self.tell()

    def tell(self) -> None:
        """Say how far it is now."""
        self._told_at = self._clock()
        rate = self._pace.per_s
        parts = [f"{self._said(self.done)} of {self._said(self.total)}"]
        parts += [f"{self._said(rate)}/s"] if rate is not None else []
        parts += [left] if (left := remaining(self._pace.left_s(self.total - self.done))) else []
        if self._is_watched:
            cells = min(BAR_CELLS, BAR_CELLS * self.done // max(self.total, 1))
            line = f"{self.doing} {'━' * cells}{'╌' * (BAR_CELLS - cells)} {', '.join(parts)}"
            print(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self.doing}: {', '.join(parts)}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._pace.note(self.done)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_watched:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
