"""What is wanted of an engine, and the step that leads to it; which state may follow which."""

from itertools import product
from typing import get_args

import pytest

from cappella.engines.reconciler import (
    STEPS,
    TRANSITIONS,
    Desired,
    IllegalTransition,
    Observed,
    Wishes,
    step,
    transition,
)
from cappella.engines.status import EngineState, EngineStatus

STATES: tuple[EngineState, ...] = get_args(EngineState)


def test_an_operators_stop_outweighs_every_reason_to_sleep_or_run() -> None:
    wishes = Wishes()
    assert wishes.desired == "running"
    wishes = wishes.with_sleep("idle").with_sleep("turn")
    assert (wishes.desired, wishes.stage) == ("asleep", "asleep: another turn is awake")
    assert wishes.with_stop(True).desired == "stopped"
    wishes = wishes.with_stop(True).without_sleep("turn").with_stop(False)
    assert (wishes.desired, wishes.stage) == ("asleep", "asleep: nobody has called it for a while")
    assert wishes.without_sleep("idle").desired == "running"


@pytest.mark.parametrize(("desired", "observed"), list(product(get_args(Desired), get_args(Observed))))
def test_each_step_leads_towards_what_is_wanted(desired: Desired, observed: Observed) -> None:
    leads = {"start": "starting", "wake": "up", "sleep": "asleep", "end": "ending", None: observed}
    after = leads[step(desired, observed)]
    running = {"starting", "up"}
    assert after in (running | {"ending"} if desired == "running" else {"nothing", "asleep", "ending"})


def test_a_step_is_never_followed_by_its_opposite() -> None:
    assert step("running", "up") is step("asleep", "asleep") is step("stopped", "nothing") is None
    assert set(STEPS.values()) == {"start", "wake", "sleep", "end"}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_a_state_changes_as_the_table_says_or_not_at_all(before: EngineState, after: EngineState) -> None:
    status = EngineStatus("ann", state=before, stage="before")
    if after == before or after in TRANSITIONS[before]:
        transition(status, after, "after")
        assert (status.state, status.stage) == (after, "after")
    else:
        with pytest.raises(IllegalTransition, match=f"from {before} to {after}"):
            transition(status, after, "after")
        assert (status.state, status.stage) == (before, "before")


def test_a_given_up_engine_is_not_ready_without_a_start() -> None:
    assert "ready" not in TRANSITIONS["failed"] | TRANSITIONS["stopped"] | TRANSITIONS["waiting"]


def test_the_reason_stays_until_the_engine_runs() -> None:
    status = EngineStatus("ann", state="ready")
    transition(status, "restarting", "waiting 1 s", "it hung")
    transition(status, "restarting", "importing vLLM")
    assert (status.reason, status.progress) == ("it hung", 0.0)
    transition(status, "ready", "ready")
    assert (status.reason, status.progress) == (None, 1.0)
