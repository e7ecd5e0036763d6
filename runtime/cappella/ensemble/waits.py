"""Tells a run's client of each model whose calls wait until its engine is awake: the judge, or the gate's model."""

import time

from cappella.engines.waiting import WaitReason
from cappella.ensemble.events import Awake, Emit, Waiting


class Waits:
    """A listener of waits that emits `Waiting` and `Awake` once for all calls of a model that wait at the same time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._calls: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def __call__(self, model: str, reason: WaitReason | None) -> None:
        calls = self._calls.get(model, 0)
        self._calls[model] = calls + (1 if reason else -1)
        if reason and calls == 0:
            self._since[model] = time.monotonic()
            self._emit(Waiting(model, reason))
        elif not reason and calls == 1:
            self._emit(Awake(model, time.monotonic() - self._since[model]))
