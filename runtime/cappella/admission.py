"""Who may begin: as many runs as the engines can take, a bounded queue behind them, and for the rest a refusal at once.

A run counts as what it costs: a sequence on the engine of each member and of its judge. What is said to one model alone
counts as one, and a share of every engine is kept for that, so that panels cannot starve it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cappella.config import Config
from cappella.errors import Overloaded
from cappella.options import Settings

KEPT_FOR_DIRECT = 0.125
"""Of each engine's sequences, for what is said to one model alone."""
PATIENCE_S = 1.0
"""After so long in the queue nobody passes who would take what the one in front waits for."""
MOST_RETRY_AFTER_S = 60

Costs = Mapping[str, int]
"""Sequences by engine."""


def costs(settings: Settings, host_of: Mapping[str, str]) -> Costs:
    """What one run takes of each engine; `host_of` names the engine of each model."""
    out: dict[str, int] = {}
    for seat in settings.panel:
        out[host_of[seat.model]] = out.get(host_of[seat.model], 0) + seat.samples
    judge = host_of[settings.judge]
    out[judge] = out.get(judge, 0) + (2 if settings.analysis == "alongside" else 1)
    return out


@dataclass(slots=True, eq=False)
class _Waiter:
    costs: Costs
    direct: bool
    place: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


class Admission:
    """`sequences` is what each engine takes at once; `max_waiting` how many may queue for an ensemble, or a model."""

    def __init__(self, sequences: Mapping[str, int], max_waiting: int) -> None:
        self._sequences = sequences
        self._max_waiting = max_waiting
        self._used = dict.fromkeys(sequences, 0)
        self._lanes: dict[str, deque[_Waiter]] = {}
        self._inside: set[_Waiter] = set()
        self._run_s = 1.0

    @classmethod
    def of(cls, config: Config) -> "Admission":
        return cls({name: model.max_num_seqs for name, model in config.models.items()}, config.server.max_waiting)

    @property
    def waiting(self) -> Mapping[str, int]:
        """By ensemble or model."""
        return {name: len(lane) for name, lane in self._lanes.items()}

    @asynccontextmanager
    async def room(self, name: str, costs: Costs, direct: bool = False) -> AsyncIterator[None]:
        """From when there is room until the caller is done. Raises Overloaded if too many wait already for `name`."""
        lane = self._lanes.setdefault(name, deque())
        if len(lane) >= self._max_waiting:
            message = f"{name} is busy, and {len(lane)} wait already: try again later."
            raise Overloaded(message, self._retry_after_s(len(lane)))
        waiter = _Waiter(self._possible(costs, direct), direct, asyncio.get_running_loop().create_future())
        lane.append(waiter)
        self._let_in()
        try:
            await waiter.place
        except asyncio.CancelledError:
            # Who was let in at the same moment has been counted.
            if waiter in self._inside:
                self._leave(waiter)
            else:
                lane.remove(waiter)
                self._let_in()
            raise
        began = time.monotonic()
        try:
            yield
        finally:
            self._run_s += 0.1 * (time.monotonic() - began - self._run_s)
            self._leave(waiter)

    def _possible(self, costs: Costs, direct: bool) -> Costs:
        """A run that takes more than there is takes all of it, alone."""
        return {model: min(count, self._most(model, direct)) for model, count in costs.items()}

    def _most(self, model: str, direct: bool) -> int:
        whole = self._sequences[model]
        return whole if direct else max(1, whole - round(whole * KEPT_FOR_DIRECT))

    def _fits(self, waiter: _Waiter) -> bool:
        return all(self._used[model] + n <= self._most(model, waiter.direct) for model, n in waiter.costs.items())

    def _let_in(self) -> None:
        """The heads of the queues in the order in which they came, as far as they fit."""
        blocked: set[str] = set()
        now = time.monotonic()
        progress = True
        while progress:
            progress = False
            for lane in sorted((lane for lane in self._lanes.values() if lane), key=lambda lane: lane[0].since):
                head = lane[0]
                if not blocked & set(head.costs) and self._fits(head):
                    self._enter(lane.popleft())
                    progress = True
                elif now - head.since > PATIENCE_S:
                    blocked |= set(head.costs)

    def _enter(self, waiter: _Waiter) -> None:
        for model, count in waiter.costs.items():
            self._used[model] += count
        self._inside.add(waiter)
        if not waiter.place.done():
            waiter.place.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        for model, count in waiter.costs.items():
            self._used[model] -= count
        self._inside.discard(waiter)
        self._let_in()

    def _retry_after_s(self, waiting: int) -> int:
        """When those who wait now will have begun, if runs last as long as they did of late."""
        return min(MOST_RETRY_AFTER_S, max(1, round(self._run_s * waiting / max(1, len(self._inside)))))
