"""The figures of the last hour, in memory: engines, queues and the memory of devices, one sample each `SAMPLE_INTERVAL_S`."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.telemetry.engine_metrics import Reading
from cappella.telemetry.trace_types import Count

SAMPLE_INTERVAL_S = 10.0
MAX_SAMPLES = 360

T = TypeVar("T")
logger = logging.getLogger("cappella")


class FiguresOverTime(TypedDict):
    """Lists with one figure for each of `times` (seconds since 1970), by engine or by device; null where it was not known."""

    interval_s: float
    times: list[float]
    tokens_per_s: dict[str, list[float | None]]
    kv_usage: dict[str, list[float | None]]
    waiting: list[Count]
    in_flight: list[Count]
    used_bytes: dict[str, list[Count | None]]
    total_bytes: dict[str, Count]


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading; `at` is in seconds of `time.monotonic`. Figures of an engine that does not tell them are None.

    `generation_tokens` is by engine and by its servers, of those that tell it.
    """

    at: float
    time: float
    generation_tokens: Mapping[str, Mapping[str, float]]
    kv_usage: Mapping[str, float | None]
    used_bytes: Mapping[str, int]
    waiting: int
    in_flight: int


class FiguresHistory:
    """`read` gives the figures now, and `load` the numbers of requests that wait and that are served."""

    def __init__(self, read: Callable[[], Awaitable[Reading]], load: Callable[[], tuple[int, int]]) -> None:
        self._read = read
        self._load = load
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES + 1)
        self._total_bytes: Mapping[str, int] = {}

    async def sample_forever(self) -> None:
        """Add a sample each `SAMPLE_INTERVAL_S`. What keeps it from that is logged once, until it can again."""
        trouble = None
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            try:
                await self.sample()
                trouble = None
            except Exception as error:  # noqa: BLE001
                # Such as a driver that fails for a while: the next sample is as good.
                if trouble != (trouble := f"{type(error).__name__}: {error}"):
                    logger.warning("the last hour's figures have a gap: %s", trouble)

    async def sample(self) -> None:
        """Add the figures now."""
        reading, (waiting, in_flight) = await self._read(), self._load()
        figures = reading.figures
        self._total_bytes = {each.device: each.total_bytes for each in reading.memory}
        self._samples.append(
            Sample(
                at=time.monotonic(),
                time=time.time(),
                generation_tokens={name: each.generation_tokens for name, each in figures.items()},
                kv_usage={name: each.kv_usage for name, each in figures.items()},
                used_bytes={each.device: each.total_bytes - each.free_bytes for each in reading.memory},
                waiting=waiting,
                in_flight=in_flight,
            )
        )

    def over_time(self) -> FiguresOverTime:
        """One list for each figure, all as long as `times`."""
        samples, shown = list(self._samples), list(self._samples)[1:]
        engines = _names(each.kv_usage for each in shown)
        return {
            "interval_s": SAMPLE_INTERVAL_S,
            "times": [each.time for each in shown],
            "tokens_per_s": {name: _rates(samples, name) for name in engines},
            "kv_usage": {name: [each.kv_usage.get(name) for each in shown] for name in engines},
            "waiting": [each.waiting for each in shown],
            "in_flight": [each.in_flight for each in shown],
            "used_bytes": {name: [each.used_bytes.get(name) for each in shown] for name in self._total_bytes},
            "total_bytes": dict(self._total_bytes),
        }


def _names(mappings: Iterable[Mapping[str, T]]) -> list[str]:
    return list(dict.fromkeys(name for each in mappings for name in each))


def _rates(samples: Sequence[Sample], name: str) -> list[float | None]:
    """Tokens per second between each two samples, of the servers that both know and that were not restarted; None without any."""
    rates: list[float | None] = []
    for before, after in pairwise(samples):
        first, last = before.generation_tokens.get(name, {}), after.generation_tokens.get(name, {})
        grown = [last[each] - first[each] for each in first.keys() & last.keys() if last[each] >= first[each]]
        rates.append(round(sum(grown) / (after.at - before.at), 1) if grown else None)
    return rates
