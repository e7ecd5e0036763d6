"""Follows batches until they are over: on a terminal a bar for each model, elsewhere a line now and then."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cappella.cli.client.batch_server import BatchServer, is_over
from cappella.evaluation.progress import LINE_EVERY_S, left
from cappella.vocabulary import Json

OTHER_WEIGHTS = "other weights"
"""Is in what a batch says that has paused because of them."""


async def following(
    server: BatchServer, batches: Sequence[Json], console: Console, poll_s: float, accept_new_weights: bool
) -> AsyncIterator[Json]:
    """Each batch as it is over, in their order, showing how far they are; one may go on with other weights if that is accepted."""
    waiting = list(batches)
    with _showing(console) as tell:
        while waiting:
            now = [await server.batch(each["id"]) for each in waiting]
            tell(now)
            for each in [each for each in now if accept_new_weights and OTHER_WEIGHTS in (_paused(each) or "")]:
                await server.accept_weights(each["id"])
            for each in [each for each in now if is_over(each)]:
                yield each
            waiting = [each for each in now if not is_over(each)]
            if waiting:
                await asyncio.sleep(poll_s)


def described(batches: Sequence[Json]) -> str:
    """How far batches are: rows, then calls of each model at work, then the time that is left."""
    counts = [each.get("request_counts") or {} for each in batches]
    rows, total = (sum(each.get(name) or 0 for each in counts) for name in ("completed", "total"))
    failed = sum(each.get("failed") or 0 for each in counts)
    progress = [each["progress"] for each in batches if each.get("progress")]
    phases = [_phase(phase) for each in progress for phase in each["phases"] if phase["running"]]
    parts = [f"{rows + failed} of {total} rows", *([f"{failed} failed"] if failed else []), *phases]
    remaining = [each["remaining_s"] for each in progress if each.get("remaining_s") is not None]
    tokens = sum(each.get("total_tokens") or 0 for each in batches)
    why = [why for each in batches if (why := _paused(each))]
    parts += [f"{tokens} tokens"] if tokens else []
    return ", ".join([*parts, *why, *([left(sum(remaining))] if remaining else [])])


def _paused(batch: Json) -> str | None:
    """Why the batch does not go on now."""
    return (batch.get("progress") or {}).get("paused")


def _phase(phase: Json) -> str:
    speed = f", {phase['tokens_per_s']:.0f} tokens/s" if phase.get("tokens_per_s") else ""
    return f"{phase['model']} {phase['done']} of {phase['done'] + phase['waiting'] + phase['running']}{speed}"


@contextmanager
def _showing(console: Console, clock: Callable[[], float] = time.monotonic) -> Any:
    if not console.is_terminal:
        told_at = clock() - LINE_EVERY_S

        def tell(batches: Sequence[Json]) -> None:
            nonlocal told_at
            if clock() - told_at >= LINE_EVERY_S:
                told_at = clock()
                console.print(described(batches), soft_wrap=True)

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def update(batches: Sequence[Json]) -> None:
            counts = [each.get("request_counts") or {} for each in batches]
            done = sum((each.get("completed") or 0) + (each.get("failed") or 0) for each in counts)
            total = sum(each.get("total") or 0 for each in counts)
            bar.update(task, description=described(batches), completed=done, total=total or None)

        yield update
