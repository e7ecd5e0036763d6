"""Progress of a step: a bar on a terminal, one line elsewhere.

Rich draws the bar. During an installation without a network it does not exist yet; then there is only the line.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def human(size_bytes: float) -> str:
    """Decimal, as disks and media are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


class Bar:
    """Counts how much of a step is done, and shows nothing."""

    def __init__(self) -> None:
        self.done = 0

    def skip(self, amount: int) -> None:
        """Count work that was done before, without effect on the speed."""
        self.done += amount

    def add(self, amount: int) -> None:
        """Count finished work; negative if it has to be done again."""
        self.done += amount


class _RichBar(Bar):
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        super().__init__()
        self._progress = progress
        self._task = task

    def skip(self, amount: int) -> None:
        super().skip(amount)
        # A reset discards the samples behind the speed.
        self._progress.reset(self._task, completed=self.done)

    def add(self, amount: int) -> None:
        super().add(amount)
        self._progress.advance(self._task, amount)


@contextmanager
def step(doing: str, total: int, in_bytes: bool = True) -> Iterator[Bar]:
    """Show a bar of `total` bytes or things while the context lasts; without a terminal, print one line."""
    progress = _progress(in_bytes) if sys.stderr.isatty() else None
    if progress is None:
        print(f"{doing}: {human(total) if in_bytes else total}", flush=True)
        yield Bar()
        return
    with progress:
        yield _RichBar(progress, progress.add_task(doing, total=total))


def _progress(in_bytes: bool) -> "Progress | None":
    """None if Rich is not installed."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    sizes = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn()) if in_bytes else (progress.MofNCompleteColumn(),)
    )
    columns = ("{task.description}", progress.BarColumn(), *sizes, progress.TimeRemainingColumn())
    return progress.Progress(*columns, console=Console(stderr=True), transient=True)
