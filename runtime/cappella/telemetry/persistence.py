"""What one server keeps of its runs on the disk, as its config says: an audit log, traces, both or nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cappella.background import background
from cappella.config import Audit, Config
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.recorder import AuditRecorder
from cappella.telemetry.audit.weights import WeightDigests, Weights
from cappella.telemetry.history import History
from cappella.telemetry.recorder import RunObserver
from cappella.telemetry.run_store import RunStore


class Persistence:
    """Opens the files that the config names, and nothing where it names none. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        audit, runs = config.server.audit, config.server.runs
        self.traces = RunStore(runs.file, runs.retention_days) if runs else None
        self._history = History(self.traces, runs.content) if runs and self.traces else None
        self._audit = _Audit(config, audit) if audit else None

    @property
    def observers(self) -> list[RunObserver]:
        return [keeper for keeper in (self._audit and self._audit.keeper, self._history) if keeper]

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """From a server's start to its end, when everything is written."""
        async with AsyncExitStack() as stack:
            if self._audit:
                await stack.enter_async_context(self._audit.kept())
            if self.traces:
                await stack.enter_async_context(_pruned(self.traces))
            yield


class _Audit:
    def __init__(self, config: Config, audit: Audit) -> None:
        self._log = AuditLog(audit)
        self._digests = WeightDigests(audit.file.with_name(f"{audit.file.name}.weights"))
        self.keeper = AuditRecorder(self._log, self._digests, Weights(config))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        self._log.start()
        self.keeper.find_digests()
        try:
            yield
        finally:
            await asyncio.to_thread(self._digests.close)
            await asyncio.to_thread(self._log.close)


@asynccontextmanager
async def _pruned(traces: RunStore) -> AsyncIterator[None]:
    try:
        async with background(traces.keep()):
            yield
    finally:
        await asyncio.to_thread(traces.close)
