"""When the members of a round are cut: after their own time, after the grace once the quorum is met, or at the round's end.

A member that waits for its engine to wake is not at work: neither its time nor its grace runs meanwhile.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from cappella.config.options import Grace
from cappella.ensemble.run import Cut

GRACE_SHARE = 2.0
"""The default grace is so many times the time that the quorum took."""
MIN_GRACE_S = 5.0

CancelReason = Literal["deadline", "quorum_unreachable", "straggler"]


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How long a round waits for its members.

    Each gets `timeout_s` of work. Once `quorum` answers have arrived, the others get `grace_s` more: by default twice the
    time that the quorum took, at least MIN_GRACE_S. The round ends after `limit_s`, and with its quorum met after
    `quorate_limit_s`, which leaves the judge its share of time, whoever waits or works.
    """

    quorum: int
    timeout_s: float
    grace_s: Grace | None = None
    limit_s: float = inf
    quorate_limit_s: float = inf


class Patience:
    """The moments until which one round waits, on the event loop's clock."""

    def __init__(self, policy: WaitPolicy, began_at: float) -> None:
        self.cut: Cut | None = None
        self._policy = policy
        self._quorum_at = inf
        self._ends_at = began_at + policy.limit_s
        self._quorate_ends_at = began_at + policy.quorate_limit_s

    @property
    def is_quorate(self) -> bool:
        return self._quorum_at < inf

    def meet_quorum(self, at: float, took_s: float) -> None:
        """The quorum is met: the slowest of its answers took `took_s` of work."""
        self._quorum_at, self._ends_at = at, min(self._ends_at, self._quorate_ends_at)
        grace_s = self._policy.grace_s
        if grace_s != "never":
            default_s = max(MIN_GRACE_S, GRACE_SHARE * took_s)
            self.cut = Cut(took_s, default_s if grace_s is None else grace_s)

    def due(self, served_at: float | None) -> tuple[float, CancelReason]:
        """When and why to cut a member at work since `served_at`; None is for one that waits for its engine."""
        if served_at is None:
            return self._ends_at, "deadline"
        ends_at = min(self._ends_at, served_at + self._policy.timeout_s)
        if self.cut is None:
            return ends_at, "deadline"
        # One that began late, since it had to wait, gets the time of the quorum, too.
        grace_ends_at = max(self._quorum_at, served_at + self.cut.quorum_s) + self.cut.grace_s
        return (grace_ends_at, "straggler") if grace_ends_at < ends_at else (ends_at, "deadline")
