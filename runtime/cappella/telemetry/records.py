"""What is known of a request: of its way from its head to the last byte of its reply, and of what was run for it."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from cappella.auth.keys import Key
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.run import Call, Failure, Run
from cappella.types import Json, Prompt, Usage


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A request to an ensemble. `status` is the run's own, `cancelled`, or the name of the error that ended it.

    `calls` are all of the run's, also where there is no `run`; of those that were broken off, tokens are an estimate.
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

    @property
    def failures(self) -> Sequence[Failure]:
        """Who failed, also in a run that came to nothing by it."""
        if self.run:
            return self.run.failures
        return self.error.failures if isinstance(self.error, PanelFailed) else ()


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What was said to one model alone. `status` is `ok`, `cancelled`, or the name of the error or HTTP status.

    `asked` is the request's body, `reply` the last megabytes of the reply's.
    """

    key: Key | None
    model: str
    asked: Json
    status: str
    usage: Usage
    reply: bytes
    total_s: float


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request. Moments are on the clock of `time.monotonic`; None is what it did not come to.

    `path` is the client's, `route` the endpoint's that it found; `asked` is an ensemble or a model of the config, which
    it waited for from `queued_at` to `admitted_at`; `ended` what was kept at `ended_at`; `error` an error's name.
    """

    method: str
    path: str
    trace_context: Mapping[str, str] = field(default_factory=dict)
    began_at: float = field(default_factory=time.monotonic)
    replied_at: float | None = None
    route: str | None = None
    status_code: int | None = None
    key_id: str | None = None
    asked: str | None = None
    queued_at: float | None = None
    admitted_at: float | None = None
    ended: RunRecord | CallRecord | None = None
    ended_at: float | None = None
    error: str | None = None

    @property
    def total_s(self) -> float:
        return (self.replied_at or time.monotonic()) - self.began_at

    @property
    def queued_s(self) -> float | None:
        """Until there was room; None for what never asked for any, or left before it got it."""
        if self.queued_at is None or self.admitted_at is None:
            return None
        return self.admitted_at - self.queued_at

    @asynccontextmanager
    async def waiting(self, asked: str, room: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        """From when there is `room` for what was asked."""
        self.asked, self.queued_at = asked, time.monotonic()
        async with room:
            self.admitted_at = time.monotonic()
            yield

    def keep(self, ended: RunRecord | CallRecord) -> None:
        """Take note of how the run, or the call, ended, now that it has."""
        self.ended, self.ended_at = ended, time.monotonic()


_current: ContextVar[RequestRecord] = ContextVar("record")


def begin(record: RequestRecord) -> None:
    """Make this the record of the request that the calling task answers."""
    _current.set(record)


def current() -> RequestRecord:
    """Of the request that this is called for."""
    return _current.get()
