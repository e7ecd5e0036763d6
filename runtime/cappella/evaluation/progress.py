"""How far an evaluation is, and how long it will take: by the recent seconds of each way."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

RECENT = 30
LINE_EVERY_S = 30.0


class Pace:
    """Counts what is to do and done by way. What the store had is done, but says nothing of the time."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left: dict[str, int] = {}
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self.done = 0

    def plan(self, way: str, count: int) -> None:
        """So many questions are left of this way."""
        self._left[way] = count

    def finish(self, way: str, seconds: float | None) -> None:
        """One is done; `seconds` is None if it was kept from before."""
        self._left[way] = max(0, self._left.get(way, 0) - 1)
        self.done += 1
        if seconds is not None:
            self._recent[way].append(seconds)

    @property
    def total(self) -> int:
        return self.done + sum(self._left.values())

    @property
    def remaining_s(self) -> float | None:
        """None until something was timed. Ways that have not begun count as the slowest way so far."""
        medians = {way: median(each) for way, each in self._recent.items()}
        if not medians:
            return None
        slowest = max(medians.values())
        return sum(left * medians.get(way, slowest) for way, left in self._left.items()) / self._at_once


@contextmanager
def showing(
    console: Console, pace: Pace, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str], None]]:
    """Receives the way after each step: on a terminal a bar, elsewhere a line now and then."""
    if not console.is_terminal:
        told_at = clock()

        def tell(way: str) -> None:
            nonlocal told_at
            if clock() - told_at >= LINE_EVERY_S:
                told_at = clock()
                console.print(f"{pace.done} of {pace.total} ({way}), {left(pace.remaining_s)}", soft_wrap=True)

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting")

        def update(way: str) -> None:
            text = f"{way}, {left(pace.remaining_s)}"
            bar.update(task, description=text, completed=pace.done, total=pace.total)

        yield update


def left(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "time not known yet"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
