"""Records each admitted run and call when it ends, however it ends: metrics, key usage and observers."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import Key
from cappella.config import Config
from cappella.config.options import Settings
from cappella.ensemble import call_counter
from cappella.ensemble.events import Emit, Event, RunStarted
from cappella.ensemble.run import Run
from cappella.telemetry import records
from cappella.telemetry.forwarded_reply import ForwardedReply
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.types import Json, Prompt, Usage

CANCELLED = "cancelled"

logger = logging.getLogger("cappella")


class Runs(Protocol):
    """What makes runs: the pipeline, or what judges answers that exist already."""

    async def run(self, prompt: Prompt, settings: Settings, emit: Emit, run_id: str | None = None) -> Run: ...


class RunObserver(Protocol):
    """Is notified when runs and calls end. Its methods must not block: they run in the event loop."""

    def require_available(self) -> None:
        """Called before each run and call. Raises CappellaError if it must not begin, since it cannot be recorded."""
        ...

    def for_config(self, config: Config, added: Collection[str]) -> "RunObserver":
        """The observer for a reloaded config; engines of the models `added` were started for it."""
        ...

    def run_ended(self, record: RunRecord) -> None: ...

    def call_ended(self, record: CallRecord) -> None: ...


class Recorder:
    """Wraps runs and single-model calls, and reports each to metrics, its key's usage and the observers."""

    def __init__(self, metrics: Metrics, gatekeeper: Gatekeeper, observers: Sequence[RunObserver]) -> None:
        self._metrics = metrics
        self._gatekeeper = gatekeeper
        self._observers = observers

    def for_config(self, config: Config, added: Collection[str]) -> "Recorder":
        """The recorder for a reloaded config; see `RunObserver.for_config`."""
        return Recorder(
            self._metrics, self._gatekeeper, [observer.for_config(config, added) for observer in self._observers]
        )

    async def run(
        self,
        runs: Runs,
        key: Key | None,
        prompt: Prompt,
        settings: Settings,
        emit: Emit,
        run_id: str | None = None,
    ) -> Run:
        """Run and record; see `Pipeline.run`."""
        self.require_available()
        self._metrics.begin(settings.ensemble)
        began, listener = time.monotonic(), _RunIdListener(emit)
        run, status, failure = None, CANCELLED, None
        with call_counter.count_calls() as made:
            try:
                run = await runs.run(prompt, settings, listener, run_id)
                status = run.status
                return run
            except Exception as error:
                status, failure = type(error).__name__, error
                raise
            finally:
                status, total_s = _cancel_cause(status), time.monotonic() - began
                record = RunRecord(
                    listener.run_id,
                    key,
                    prompt,
                    settings,
                    status,
                    run,
                    failure,
                    run.calls if run else made.calls,
                    total_s,
                    made.tool_uses,
                    made.missing_tools,
                )
                await self._run_ended(record)

    @asynccontextmanager
    async def call(
        self, key: Key | None, model: str, request: Json, answers: int, tokens: int
    ) -> AsyncIterator[ForwardedReply]:
        """Record one call for so many `answers`, each of at most so many `tokens`.

        The caller adds the reply's status code and bytes to what this yields.
        """
        self.require_available()
        began, reply = time.monotonic(), ForwardedReply(request, answers, tokens)
        status = CANCELLED
        try:
            yield reply
            status = f"HTTP {reply.status_code}" if reply.is_refused else "ok"
        except Exception as error:
            status = type(error).__name__
            reply.fail()
            raise
        finally:
            total_s, status = time.monotonic() - began, _cancel_cause(status)
            await self._call_ended(CallRecord(key, model, request, status, reply.usage, reply.tail, total_s))

    @asynccontextmanager
    async def counting(self, key: Key | None, model: str, request: Json) -> AsyncIterator[None]:
        """Record one call that generates nothing, and costs no tokens: a count of them."""
        self.require_available()
        began, status = time.monotonic(), CANCELLED
        try:
            yield
            status = "ok"
        except Exception as error:
            status = type(error).__name__
            raise
        finally:
            total_s = time.monotonic() - began
            await self._call_ended(CallRecord(key, model, request, _cancel_cause(status), Usage(), b"", total_s))

    def require_available(self) -> None:
        """Raises CappellaError if no run or call may begin now, since it cannot be recorded."""
        for observer in self._observers:
            observer.require_available()

    async def _run_ended(self, record: RunRecord) -> None:
        settings, usages = record.settings, [call.usage for call in record.calls]
        _tell(
            partial(self._metrics.end, settings.ensemble, record.run, record.status, record.failures, record.calls),
            *(partial(observer.run_ended, record) for observer in self._observers),
        )
        await self._gatekeeper.count_tokens(
            record.key, sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages)
        )

    async def _call_ended(self, record: CallRecord) -> None:
        _tell(*(partial(observer.call_ended, record) for observer in self._observers))
        await self._gatekeeper.count_tokens(record.key, record.usage.prompt_tokens, record.usage.completion_tokens)


def _tell(*observers: Callable[[], object]) -> None:
    """Tell each of them, also if another fails: no record may cost the others theirs."""
    for tell in observers:
        try:
            tell()
        except Exception:
            logger.exception("the end of a run or call was not recorded everywhere")


def _cancel_cause(status: str) -> str:
    """The status; for a cancelled request with a known error, that error's name."""
    return records.current().error or status if status == CANCELLED else status


class _RunIdListener:
    """Forwards events and notes the run's id, which a failed run reports nowhere else."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.run_id: str | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
        self._emit(event)
