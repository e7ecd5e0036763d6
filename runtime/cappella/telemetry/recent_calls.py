"""The last calls of models and ensembles, in memory: when, by which key, what came of them; nothing of what they asked."""

import time
from collections import deque
from collections.abc import Collection, Sequence

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.telemetry import trace
from cappella.telemetry.records import CallRecord, RequestRecord, RunRecord
from cappella.telemetry.trace_types import Count, Milliseconds
from cappella.types import Usage

MAX_CALLS = 200


class RecentCall(TypedDict):
    """A call that ended at `time`, in seconds since 1970. `status` is that of its run or of its engine's reply, or an error's class.

    Tokens are those of all engines that it used.
    """

    time: float
    route: str
    model: str | None
    key: str | None
    status_code: Count | None
    status: str | None
    run_id: str | None
    queued_ms: Milliseconds
    total_ms: Milliseconds
    prompt_tokens: Count
    completion_tokens: Count


class RecentCalls:
    """The last `MAX_CALLS`, refused ones too; `routes` are those of calls."""

    def __init__(self, routes: Collection[str] = ()) -> None:
        self._routes = routes
        self._calls: deque[RecentCall] = deque(maxlen=MAX_CALLS)

    def add(self, record: RequestRecord) -> None:
        """Add a request whose reply has ended or broken off, if it was a call, or one that was refused before its model was known."""
        if record.target is not None or (record.route in self._routes and (record.status_code or 0) >= 400):
            self._calls.append(_call(record))

    def newest_first(self, limit: int) -> Sequence[RecentCall]:
        return list(reversed(self._calls))[:limit]


def _call(record: RequestRecord) -> RecentCall:
    outcome = record.outcome
    used = _used(outcome)
    return {
        "time": time.time(),
        "route": record.route or "",
        "model": record.target,
        "key": record.key_id,
        "status_code": record.status_code,
        "status": outcome.status if outcome else record.error,
        "run_id": outcome.run_id if isinstance(outcome, RunRecord) else None,
        "queued_ms": trace.ms(record.queued_s),
        "total_ms": trace.ms(record.total_s),
        "prompt_tokens": sum(each.prompt_tokens for each in used),
        "completion_tokens": sum(each.completion_tokens for each in used),
    }


def _used(outcome: RunRecord | CallRecord | None) -> Sequence[Usage]:
    if isinstance(outcome, RunRecord):
        return [call.usage for call in outcome.calls]
    return [outcome.usage] if outcome else []
