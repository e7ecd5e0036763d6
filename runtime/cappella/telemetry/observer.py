"""Who is told of each request, and of what came of it: figures always, logs and traces where the config wants them."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from cappella.config import Config, Server
from cappella.telemetry import logs, records, tracing
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.records import CallRecord, RequestRecord, RunRecord


class RequestObserver:
    """A `Keeper` that keeps nothing but what is told on; `visited` is for the end of each reply.

    Raises ConfigError for traces without what makes them.
    """

    def __init__(self, server: Server, metrics: Metrics) -> None:
        self._metrics = metrics
        self._as_json = server.log_format == "json"
        self._tracer = tracing.opened(server.tracing) if server.tracing else None

    def require(self) -> None:
        """Nothing: no run depends on who watches it."""

    def renewed(self, config: Config, added: Collection[str]) -> "RequestObserver":
        """The same: neither logs nor traces change without a restart."""
        return self

    def run_ended(self, ended: RunRecord) -> None:
        records.current().keep(ended)
        if self._as_json:
            logs.run_ended(ended)

    def call_ended(self, ended: CallRecord) -> None:
        records.current().keep(ended)

    def visited(self, record: RequestRecord) -> None:
        """Tell of a request whose reply has ended, or broken off."""
        self._metrics.replied(record.route, record.status_code)
        if record.asked is not None and record.queued_s is not None:
            self._metrics.queued(record.asked, record.queued_s)
        if self._as_json:
            logs.visited(record)
        if self._tracer is not None:
            self._tracer.visited(record)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While the gateway runs; at the end the last traces are sent, if they are taken."""
        try:
            yield
        finally:
            if self._tracer is not None:
                await asyncio.to_thread(self._tracer.close)
