"""Reports each request, run and call to metrics and, as configured, to JSON logs and tracing."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from cappella.config import Config, Server
from cappella.telemetry import logs, records, tracing
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.recent_calls import RecentCalls
from cappella.telemetry.records import CallRecord, RequestRecord, RunRecord


class RequestObserver:
    """A `RunObserver` that also observes the end of each reply.

    Raises ConfigError if tracing is configured and its packages are not installed.
    """

    def __init__(self, server: Server, metrics: Metrics, routes_of_calls: Collection[str] = ()) -> None:
        self.recent_calls = RecentCalls(routes_of_calls)
        self._metrics = metrics
        self._as_json = server.log_format == "json"
        self._tracer = tracing.open_tracer(server.tracing) if server.tracing else None

    def require_available(self) -> None:
        """Never raises: logs and traces do not prevent runs."""

    def for_config(self, config: Config, added: Collection[str]) -> "RequestObserver":
        """The same observer: settings of logs and traces change only at a restart."""
        return self

    def run_ended(self, record: RunRecord) -> None:
        records.current().set_outcome(record)
        if self._as_json:
            logs.run_ended(record)

    def call_ended(self, record: CallRecord) -> None:
        records.current().set_outcome(record)

    def request_ended(self, record: RequestRecord) -> None:
        """Report a request whose reply has ended or broken off."""
        self._metrics.count_reply(record.route, record.status_code)
        self.recent_calls.add(record)
        if self._as_json:
            logs.request_ended(record)
        self._observe_run(record)

    def background_ended(self, record: RequestRecord) -> None:
        """Report a response in the background, whose request has been reported when it was queued."""
        self._observe_run(record)

    def _observe_run(self, record: RequestRecord) -> None:
        if record.target is not None and record.queued_s is not None:
            self._metrics.observe_queue(record.target, record.queued_s)
        if self._tracer is not None:
            self._tracer.request_ended(record)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lasts while the gateway runs; sends the last traces at its end."""
        try:
            yield
        finally:
            if self._tracer is not None:
                await asyncio.to_thread(self._tracer.close)
