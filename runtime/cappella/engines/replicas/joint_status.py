"""One status for all replicas of a model: as good as the best of them, with what is wrong with the others."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from cappella.engines.status import MAX_FAILURES, EngineState, EngineStatus, Failure

BEST_FIRST: tuple[EngineState, ...] = (
    "ready",
    "asleep",
    "loading",
    "restarting",
    "waiting",
    "unhealthy",
    "stopped",
    "failed",
)


def joint_status(model: str, replicas: Mapping[str, EngineStatus]) -> EngineStatus:
    """The status of a model with these replicas, by name, as it is now; without any it waits."""
    if not replicas:
        return EngineStatus(model, stage="no replicas yet")
    statuses = replicas.values()
    best = min(statuses, key=lambda each: BEST_FIRST.index(each.state))
    times = [each.remaining_s for each in statuses if each.remaining_s is not None]
    woken = max(statuses, key=lambda each: each.wakes)
    return EngineStatus(
        model,
        best.state,
        _stage(best, replicas),
        max(each.progress for each in statuses if each.state == best.state),
        restarts=sum(each.restarts for each in statuses),
        reason=_reason(replicas),
        restarts_asked=sum(each.restarts_asked for each in statuses),
        remaining_s=min(times) if times and best.state != "ready" else None,
        failures=_failures(replicas),
        wakes=sum(each.wakes for each in statuses),
        last_wake_s=woken.last_wake_s,
    )


def _stage(best: EngineStatus, replicas: Mapping[str, EngineStatus]) -> str:
    alike = sum(each.state == best.state for each in replicas.values())
    if alike == len(replicas):
        return best.stage
    return f"{alike} of {len(replicas)} replicas {best.state}"


def _reason(replicas: Mapping[str, EngineStatus]) -> str | None:
    """Why replicas do not run."""
    reasons = [f"{name}: {each.reason}" for name, each in replicas.items() if each.reason]
    return "; ".join(reasons) or None


def _failures(replicas: Mapping[str, EngineStatus]) -> deque[Failure]:
    found = [replace(each, reason=f"{name}: {each.reason}") for name, of in replicas.items() for each in of.failures]
    return deque(sorted(found, key=lambda each: each.time), maxlen=MAX_FAILURES)
