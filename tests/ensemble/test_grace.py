"""When a round cuts its members: the default grace, a configured one, and members that had to wait for their engines."""

from math import inf

import pytest

from cappella.config.options import Grace
from cappella.ensemble.grace import Patience, WaitPolicy
from cappella.ensemble.run import Cut


def quorate(grace_s: Grace | None = None, at: float = 10.0, took_s: float = 10.0, **policy: float) -> Patience:
    patience = Patience(WaitPolicy(2, policy.pop("timeout_s", 120.0), grace_s, **policy), began_at=0.0)
    patience.meet_quorum(at, took_s)
    return patience


@pytest.mark.parametrize(("took_s", "grace_s"), [(10.0, 20.0), (2.5, 5.0), (0.1, 5.0)])
def test_the_default_grace_is_twice_the_time_of_the_quorum_and_at_least_five_seconds(
    took_s: float, grace_s: float
) -> None:
    patience = quorate(at=took_s, took_s=took_s)
    assert patience.cut == Cut(took_s, grace_s)
    assert patience.due(0.0) == (took_s + grace_s, "straggler")


def test_a_configured_grace_is_kept_as_it_is() -> None:
    assert quorate(0.5).due(0.0) == (10.5, "straggler")
    assert quorate(0).due(0.0) == (10.0, "straggler")


def test_never_leaves_the_round_its_time() -> None:
    patience = quorate("never")
    assert (patience.cut, patience.due(0.0)) == (None, (120.0, "deadline"))


def test_before_the_quorum_only_the_time_of_a_round_ends_the_waiting() -> None:
    patience = Patience(WaitPolicy(2, 120.0, limit_s=300.0), began_at=0.0)
    assert patience.due(0.0) == (120.0, "deadline")
    assert patience.due(30.0) == (150.0, "deadline")
    assert patience.due(None) == (300.0, "deadline")


def test_a_member_that_waits_for_its_engine_has_no_grace_that_could_end() -> None:
    assert quorate(0, quorate_limit_s=225.0).due(None) == (225.0, "deadline")


def test_a_member_that_waited_gets_the_time_of_the_quorum_and_the_grace_from_when_it_began() -> None:
    assert quorate(at=10.0, took_s=10.0).due(60.0) == (60.0 + 10.0 + 20.0, "straggler")


def test_members_that_never_waited_get_the_whole_grace_after_a_quorum_that_did() -> None:
    assert quorate(at=70.0, took_s=10.0).due(0.0) == (90.0, "straggler")


def test_no_grace_lengthens_the_round() -> None:
    assert quorate(timeout_s=15.0).due(0.0) == (15.0, "deadline")
    assert quorate(quorate_limit_s=12.0, limit_s=inf).due(0.0) == (12.0, "deadline")
