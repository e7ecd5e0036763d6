"""The state of one engine, and the actions that an operator may ask for in each state."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EngineState = Literal["waiting", "loading", "ready", "unhealthy", "asleep", "restarting", "failed", "stopped"]

Action = Literal["start", "sleep", "wake", "restart"]
"""What an operator may ask of an engine."""

ACTIONS: Mapping[EngineState, tuple[Action, ...]] = {
    "waiting": ("sleep",),
    "loading": ("restart", "sleep"),
    "ready": ("restart", "sleep"),
    "unhealthy": ("restart", "sleep"),
    "asleep": ("sleep",),
    "restarting": ("restart", "sleep"),
    "failed": ("start",),
    "stopped": ("wake",),
}
"""The actions that each state allows."""


MAX_FAILURES = 20
"""How many failures of an engine are remembered."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How an engine failed: `time` in seconds since 1970, `log` the file with the error, None once it is overwritten."""

    time: float
    reason: str
    log: str | None


@dataclass(slots=True)
class EngineStatus:
    """The state of one engine. One that is `asleep` wakes for a call; one that an operator `stopped` does not.

    `stage` describes the state to a person, and `progress` runs from 0 to 1 during a start, of which an estimated
    `remaining_s` are left. `restarts` counts crashes, `restarts_asked` the restarts by operators. `wakes` counts how often a call
    woke it from an idle sleep, the last time in `last_wake_s`. `reason` is why the engine does not run; `failures`,
    the newest last, stay after it has recovered.
    """

    model: str
    state: EngineState = "waiting"
    stage: str = "waiting to start"
    progress: float = 0.0
    restarts: int = 0
    reason: str | None = None
    restarts_asked: int = 0
    remaining_s: float | None = None
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES))
    wakes: int = 0
    last_wake_s: float | None = None

    @property
    def last_failure(self) -> Failure | None:
        return self.failures[-1] if self.failures else None

    @property
    def summary(self) -> str:
        """The stage and the remaining time, for a person."""
        if not self.remaining_s:
            return self.stage
        return f"{self.stage}, about {math.ceil(self.remaining_s)} s left"

    @property
    def accepts_requests(self) -> bool:
        return self.state in ("ready", "asleep")

    @property
    def start_finished(self) -> bool:
        """Whether the start has succeeded, failed or been called off."""
        return self.state in ("ready", "unhealthy", "asleep", "failed", "stopped")
