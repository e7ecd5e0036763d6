"""Opens the audit log and the run store of a server, as configured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cappella.background import background
from cappella.config import Audit, Config
from cappella.telemetry.audit.actions import OperatorActions
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.recorder import AuditRecorder
from cappella.telemetry.audit.weights import WeightDigests, Weights
from cappella.telemetry.history import History
from cappella.telemetry.recorder import RunObserver
from cappella.telemetry.response_store import ResponseStore
from cappella.telemetry.run_store import RunStore

RESTARTED = {"code": "server_error", "message": "The server was restarted before this response had ended."}
"""The error of a response in the background that an earlier server has left unfinished."""


class Persistence:
    """The files that the config names, opened. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        audit, runs = config.server.audit, config.server.runs
        self.run_store = RunStore(runs.file, runs.retention_days, runs.max_bytes_per_key) if runs else None
        self.responses = ResponseStore(self.run_store) if runs and self.run_store and runs.content else None
        self._history = History(self.run_store, runs.content) if runs and self.run_store else None
        self._audit = _Audit(config, audit) if audit else None
        self.actions = OperatorActions(self._audit.log if self._audit else None)

    def digest_of(self, name: str) -> str | None:
        """The digest of a model's or an adapter's weights, `pending` at first; None without an audit log, for which it is made."""
        return self._audit.digests.latest.get(name) if self._audit else None

    @property
    def observers(self) -> list[RunObserver]:
        return [observer for observer in (self._audit and self._audit.recorder, self._history) if observer]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lasts from a server's start to its end; everything is written when it exits."""
        async with AsyncExitStack() as stack:
            if self._audit:
                await stack.enter_async_context(self._audit.running())
            if self.run_store:
                await stack.enter_async_context(_pruning(self.run_store))
            if self.responses:
                await self.responses.fail_interrupted(RESTARTED)
            yield


class _Audit:
    def __init__(self, config: Config, audit: Audit) -> None:
        self.log = AuditLog(audit)
        self.digests = WeightDigests(audit.file.with_name(f"{audit.file.name}.weights"))
        self.recorder = AuditRecorder(self.log, self.digests, Weights(config))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.log.start()
        self.recorder.compute_digests()
        try:
            yield
        finally:
            await asyncio.to_thread(self.digests.close)
            await asyncio.to_thread(self.log.close)


@asynccontextmanager
async def _pruning(store: RunStore) -> AsyncIterator[None]:
    try:
        async with background(store.prune_forever()):
            yield
    finally:
        await asyncio.to_thread(store.close)
