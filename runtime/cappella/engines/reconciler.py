"""Two tables: the step from what an engine's process does to what is wanted, and the allowed changes of its state."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cappella.engines.status import EngineState, EngineStatus

Desired = Literal["running", "asleep", "stopped"]
Observed = Literal["nothing", "starting", "up", "asleep", "ending"]
"""What an engine's process does; one that is `asleep` has freed its GPU memory and lives on."""
Step = Literal["start", "wake", "sleep", "end"]
SleepReason = Literal["swap", "idle"]

STRICT = False
"""Whether `transition` raises IllegalTransition, as in tests, or logs a warning."""

ASLEEP: Mapping[SleepReason, str] = {
    "swap": "asleep: another swap group is awake",
    "idle": "asleep: no call for a while",
}
WAKING = "asleep: wakes for a call"
STOPPED = "put to sleep by an operator"

STEPS: Mapping[tuple[Desired, Observed], Step] = {
    ("running", "nothing"): "start",
    ("running", "asleep"): "wake",
    ("asleep", "starting"): "end",
    ("asleep", "up"): "sleep",
    ("stopped", "starting"): "end",
    ("stopped", "up"): "sleep",
}
"""Any other pair needs no step: the process does what is wanted, or is on its way there."""

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
"""The states that may follow each. A state may also follow itself, with another stage."""

logger = logging.getLogger(__name__)


class IllegalTransition(RuntimeError):
    """A change of state that is not in TRANSITIONS: a bug in Cappella."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted of an engine: to run, unless an operator has `stopped` it or there are reasons for it to sleep."""

    stopped: bool = False
    sleep_reasons: frozenset[SleepReason] = frozenset()

    @property
    def desired(self) -> Desired:
        if self.stopped:
            return "stopped"
        return "asleep" if self.sleep_reasons else "running"

    @property
    def stage(self) -> str:
        """Why the engine does not run, for a person."""
        return STOPPED if self.stopped else ASLEEP["swap" if "swap" in self.sleep_reasons else "idle"]

    def with_stop(self, stopped: bool) -> "Intent":
        return replace(self, stopped=stopped)

    def with_sleep(self, reason: SleepReason) -> "Intent":
        return replace(self, sleep_reasons=self.sleep_reasons | {reason})

    def without_sleep(self, reason: SleepReason) -> "Intent":
        return replace(self, sleep_reasons=self.sleep_reasons - {reason})


def step(desired: Desired, observed: Observed) -> Step | None:
    """The next step for the process; None if there is nothing to do."""
    return STEPS.get((desired, observed))


def transition(status: EngineStatus, state: EngineState, stage: str, reason: str | None = None) -> None:
    """Change an engine's state. `reason` is why it does not run; without one, the last reason stays until it is ready."""
    if state != status.state and state not in TRANSITIONS[status.state]:
        message = f"{status.model} cannot go from {status.state} to {state} ({stage})"
        if STRICT:
            raise IllegalTransition(message)
        logger.warning("illegal transition: %s", message)
    runs = state in ("ready", "unhealthy")
    status.state, status.stage, status.progress = state, stage, 1.0 if runs else 0.0
    status.reason = None if state == "ready" else reason or status.reason
