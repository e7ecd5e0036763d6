"""The tables of the reconciler: intent and step, and the allowed changes of state."""

from itertools import product
from typing import get_args

import pytest

from cappella.engines.reconciler import (
    STEPS,
    TRANSITIONS,
    Desired,
    IllegalTransition,
    Intent,
    Observed,
    step,
    transition,
)
from cappella.engines.status import EngineState, EngineStatus

STATES: tuple[EngineState, ...] = get_args(EngineState)


def test_an_operators_stop_outweighs_every_reason_to_sleep_or_run() -> None:
    intent = Intent()
    assert intent.desired == "running"
    intent = intent.with_sleep("idle").with_sleep("swap")
    assert (intent.desired, intent.stage) == ("asleep", "asleep: another swap group is awake")
    assert intent.with_stop(True).desired == "stopped"
    intent = intent.with_stop(True).without_sleep("swap").with_stop(False)
    assert (intent.desired, intent.stage) == ("asleep", "asleep: no call for a while")
    assert intent.without_sleep("idle").desired == "running"


@pytest.mark.parametrize(("desired", "observed"), list(product(get_args(Desired), get_args(Observed))))
def test_each_step_leads_towards_the_desired_state(desired: Desired, observed: Observed) -> None:
    result = {"start": "starting", "wake": "up", "sleep": "asleep", "end": "ending", None: observed}
    after = result[step(desired, observed)]
    running = {"starting", "up"}
    assert after in (running | {"ending"} if desired == "running" else {"nothing", "asleep", "ending"})


def test_a_step_is_never_followed_by_its_opposite() -> None:
    assert step("running", "up") is step("asleep", "asleep") is step("stopped", "nothing") is None
    assert set(STEPS.values()) == {"start", "wake", "sleep", "end"}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_only_changes_of_state_in_the_table_are_allowed(before: EngineState, after: EngineState) -> None:
    status = EngineStatus("ann", state=before, stage="before")
    if after == before or after in TRANSITIONS[before]:
        transition(status, after, "after")
        assert (status.state, status.stage) == (after, "after")
    else:
        with pytest.raises(IllegalTransition, match=f"from {before} to {after}"):
            transition(status, after, "after")
        assert (status.state, status.stage) == (before, "before")


def test_a_failed_or_stopped_engine_is_not_ready_without_a_start() -> None:
    assert "ready" not in TRANSITIONS["failed"] | TRANSITIONS["stopped"] | TRANSITIONS["waiting"]


def test_the_reason_stays_until_the_engine_runs() -> None:
    status = EngineStatus("ann", state="ready")
    transition(status, "restarting", "waiting 1 s", "hung")
    transition(status, "restarting", "importing vLLM")
    assert (status.reason, status.progress) == ("hung", 0.0)
    transition(status, "ready", "ready")
    assert (status.reason, status.progress) == (None, 1.0)
