"""Records of requests, and of the run or call that each one caused."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from cappella.auth.keys import Key
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.run import Call, Failure, Run, ToolUse
from cappella.types import Json, Prompt, Usage


@dataclass(frozen=True, slots=True)
class RunRecord:
    """An ended run. `status` is the run's status, `cancelled`, or the class name of the error that ended it.

    `run` is None for a failed run; `calls` are all its engine calls. Tokens of interrupted calls are estimated. `tool_uses`
    are all its calls of tools, `missing_tools` the servers whose tools a seat was not offered, and why.
    """

    run_id: str | None
    key: Key | None
    prompt: Prompt
    settings: Settings
    status: str
    run: Run | None
    error: Exception | None
    calls: Sequence[Call]
    total_s: float
    tool_uses: Sequence[ToolUse] = ()
    missing_tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings_used(self) -> Settings:
        """The settings with the judge that judged, which may be another than the one that was asked for."""
        return self.run.settings if self.run else self.settings

    @property
    def failures(self) -> Sequence[Failure]:
        """Failures of members, also for a run that failed because of them."""
        if self.run:
            return self.run.failures
        return self.error.failures if isinstance(self.error, PanelFailed) else ()


@dataclass(frozen=True, slots=True)
class CallRecord:
    """An ended call of a single model. `status` is `ok`, `cancelled`, an error's class name or an HTTP status.

    `request` is the body of the request, `reply` the last megabytes of the reply's body.
    """

    key: Key | None
    model: str
    request: Json
    status: str
    usage: Usage
    reply: bytes
    total_s: float


@dataclass(slots=True)
class RequestRecord:
    """An HTTP request. Times are in seconds of `time.monotonic`; None means that the request did not get that far.

    `path` is what the client sent, `route` the endpoint that matched. `target` is the ensemble or model it called,
    `outcome` the record of its run or call, `error` the class name of an error. Of a response in the background there is
    another record, from the request on until the response has ended.
    """

    method: str
    path: str
    trace_context: Mapping[str, str] = field(default_factory=dict)
    began_at: float = field(default_factory=time.monotonic)
    replied_at: float | None = None
    route: str | None = None
    status_code: int | None = None
    key_id: str | None = None
    target: str | None = None
    queued_at: float | None = None
    admitted_at: float | None = None
    outcome: RunRecord | CallRecord | None = None
    ended_at: float | None = None
    error: str | None = None
    is_background: bool = False

    @property
    def total_s(self) -> float:
        return (self.replied_at or time.monotonic()) - self.began_at

    @property
    def queued_s(self) -> float | None:
        """Seconds in the queue; None if the request was never queued or left before it was admitted."""
        if self.queued_at is None or self.admitted_at is None:
            return None
        return self.admitted_at - self.queued_at

    @asynccontextmanager
    async def waiting(self, target: str, slot: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        """Enter `slot`, and note when the wait began and ended."""
        self.target, self.queued_at = target, time.monotonic()
        async with slot:
            self.admitted_at = time.monotonic()
            yield

    def set_outcome(self, outcome: RunRecord | CallRecord) -> None:
        """Note how the run or call ended, and that it ended now."""
        self.outcome, self.ended_at = outcome, time.monotonic()


_current: ContextVar[RequestRecord] = ContextVar("record")


def begin(record: RequestRecord) -> None:
    """Make this the record of the request that the current task handles."""
    _current.set(record)


def current() -> RequestRecord:
    """The record of the request that the current task handles."""
    return _current.get()


def current_or_none() -> RequestRecord | None:
    """The same; None where the current task handles no request."""
    return _current.get(None)
