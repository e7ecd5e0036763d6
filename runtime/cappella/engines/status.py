"""The state of one engine, and the actions that an operator may ask for in each state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
"""What an operator may ask for, by state."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How an engine ended last: `time` is in seconds since 1970, `log` the file with its last words, while it is kept."""

    time: float
    reason: str
    log: str | None


@dataclass(slots=True)
class EngineStatus:
    """What the supervisor knows of one engine; `progress` runs from 0 to 1 while it loads. A sleeper wakes for a call.

    Who is `stopped` does not: an operator put it to sleep. `restarts` counts deaths, `restarts_asked` what operators
    asked for; `remaining_s` is what is left of a start, if the last one tells. `reason` is why it does not run;
    `last_failure` stays when it runs again.
    """

    model: str
    state: EngineState = "waiting"
    stage: str = "waiting for its turn"
    progress: float = 0.0
    restarts: int = 0
    reason: str | None = None
    restarts_asked: int = 0
    remaining_s: float | None = None
    last_failure: Failure | None = None

    @property
    def summary(self) -> str:
        """How far it is, for a person."""
        if not self.remaining_s:
            return self.stage
        return f"{self.stage}, about {math.ceil(self.remaining_s)} s left"

    @property
    def accepts_requests(self) -> bool:
        return self.state in ("ready", "asleep")

    @property
    def start_finished(self) -> bool:
        """Whether its start has ended, well or not."""
        return self.state in ("ready", "unhealthy", "asleep", "failed", "stopped")
