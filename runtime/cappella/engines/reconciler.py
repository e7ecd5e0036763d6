"""What an engine is wanted to do, what its process does, and the step from one to the other; how its state may change."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cappella.engines.status import EngineState, EngineStatus

Desired = Literal["running", "asleep", "stopped"]
Observed = Literal["nothing", "starting", "up", "asleep", "ending"]
"""Of an engine's process: `asleep` is one that gave its memory back and lives on."""
Step = Literal["start", "wake", "sleep", "end"]
SleepReason = Literal["turn", "idle"]

STRICT = False
"""Whether a change of state that the table does not hold is an error, as in tests, or a line in the log."""

ASLEEP: Mapping[SleepReason, str] = {
    "turn": "asleep: another turn is awake",
    "idle": "asleep: nobody has called it for a while",
}
STOPPED = "put to sleep by an operator"

STEPS: Mapping[tuple[Desired, Observed], Step] = {
    ("running", "nothing"): "start",
    ("running", "asleep"): "wake",
    ("asleep", "starting"): "end",
    ("asleep", "up"): "sleep",
    ("stopped", "starting"): "end",
    ("stopped", "up"): "sleep",
}
"""Any other pair is as it should be, or on its way there."""

TRANSITIONS: Mapping[EngineState, frozenset[EngineState]] = {
    "waiting": frozenset(("loading", "restarting", "asleep", "stopped", "failed")),
    "loading": frozenset(("ready", "restarting", "asleep", "stopped", "failed")),
    "restarting": frozenset(("ready", "asleep", "stopped", "failed")),
    "ready": frozenset(("unhealthy", "restarting", "asleep", "stopped", "failed")),
    "unhealthy": frozenset(("ready", "restarting", "asleep", "stopped", "failed")),
    "asleep": frozenset(("ready", "restarting", "stopped", "failed")),
    "stopped": frozenset(("loading", "restarting", "asleep")),
    "failed": frozenset(("loading", "restarting")),
}
"""The states that may follow each. A state may always follow itself, with another stage."""

logger = logging.getLogger(__name__)


class IllegalTransition(RuntimeError):
    """A change of state that the table does not hold: a mistake of this program."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Who wants an engine not to run: an operator, or those with a reason for it to sleep."""

    stopped: bool = False
    asleep_for: frozenset[SleepReason] = frozenset()

    @property
    def desired(self) -> Desired:
        if self.stopped:
            return "stopped"
        return "asleep" if self.asleep_for else "running"

    @property
    def stage(self) -> str:
        """Why it does not run, in words."""
        return STOPPED if self.stopped else ASLEEP["turn" if "turn" in self.asleep_for else "idle"]

    def with_stop(self, stopped: bool) -> "Wishes":
        return replace(self, stopped=stopped)

    def with_sleep(self, reason: SleepReason) -> "Wishes":
        return replace(self, asleep_for=self.asleep_for | {reason})

    def without_sleep(self, reason: SleepReason) -> "Wishes":
        return replace(self, asleep_for=self.asleep_for - {reason})


def step(desired: Desired, observed: Observed) -> Step | None:
    """What leads from one to the other; None where nothing is to be done."""
    return STEPS.get((desired, observed))


def transition(status: EngineStatus, state: EngineState, stage: str, reason: str | None = None) -> None:
    """The one way in which a state changes. `reason` is why the engine does not run; without one, the last stays until it does."""
    if state != status.state and state not in TRANSITIONS[status.state]:
        message = f"{status.model} cannot go from {status.state} to {state} ({stage})"
        if STRICT:
            raise IllegalTransition(message)
        logger.warning("illegal transition: %s", message)
    runs = state in ("ready", "unhealthy")
    status.state, status.stage, status.progress = state, stage, 1.0 if runs else 0.0
    status.reason = None if state == "ready" else reason or status.reason
