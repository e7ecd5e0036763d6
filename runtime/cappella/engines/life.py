"""One process of an engine, from before its start until after its end."""

import time
from dataclasses import dataclass

from cappella.engines.process.process import EngineProcess
from cappella.engines.reconciler import Observed


@dataclass(slots=True)
class Life:
    """`comes_back` says that an earlier life of the engine was ready, `ready_at` (on the monotonic clock) that this one was."""

    comes_back: bool = False
    process: EngineProcess | None = None
    observed: Observed = "nothing"
    ready_at: float | None = None

    def next(self) -> "Life":
        return Life(self.engine_was_ready)

    @property
    def engine_was_ready(self) -> bool:
        return self.comes_back or self.ready_at is not None

    @property
    def running_process(self) -> EngineProcess | None:
        return self.process if self.process and self.process.running else None

    def was_stable(self, stable_s: float) -> bool:
        """Whether it was ready for so long."""
        return self.ready_at is not None and time.monotonic() - self.ready_at > stable_s
