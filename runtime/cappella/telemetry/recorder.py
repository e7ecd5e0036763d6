"""What is kept of a request that was let in, when it ends, however it ends."""

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import Key
from cappella.config import Config
from cappella.config.options import Settings
from cappella.ensemble import calls
from cappella.ensemble.events import Emit, Event, RunStarted
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.run import Run
from cappella.telemetry import records
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.telemetry.usage import Meter
from cappella.types import Json, Prompt

CANCELLED = "cancelled"


class RunObserver(Protocol):
    """One way of keeping what has ended. It must be quick: the event loop waits for it."""

    def require(self) -> None:
        """Before anything begins. Raises CappellaError if it must not, since it could not be kept."""
        ...

    def renewed(self, config: Config, comes: Collection[str]) -> "RunObserver":
        """What keeps the runs under another config, for which the engines of the models `comes` were started."""
        ...

    def run_ended(self, ended: RunRecord) -> None: ...

    def call_ended(self, ended: CallRecord) -> None: ...


class Recorder:
    """Runs go through here, and so do calls of single models: figures, what a key used, and what the keepers keep."""

    def __init__(self, metrics: Metrics, gatekeeper: Gatekeeper, observers: Sequence[RunObserver]) -> None:
        self._metrics = metrics
        self._gatekeeper = gatekeeper
        self._keepers = observers

    def renewed(self, config: Config, comes: Collection[str]) -> "Recorder":
        """For another config; see `Keeper.renewed`."""
        return Recorder(self._metrics, self._gatekeeper, [each.renewed(config, comes) for each in self._keepers])

    async def run(self, pipeline: Pipeline, key: Key | None, prompt: Prompt, settings: Settings, emit: Emit) -> Run:
        """See `Pipeline.run`."""
        self._require()
        self._metrics.begin(settings.ensemble)
        began, heard = time.monotonic(), _Listener(emit)
        run, status, failed = None, CANCELLED, None
        with calls.counted() as made:
            try:
                run = await pipeline.run(prompt, settings, heard)
                status = run.status
                return run
            except Exception as error:
                status, failed = type(error).__name__, error
                raise
            finally:
                spent, status = run.calls if run else made, _because(status)
                total_s = time.monotonic() - began
                await self._run_ended(
                    RunRecord(heard.run_id, key, prompt, settings, status, run, failed, spent, total_s)
                )

    @asynccontextmanager
    async def call(self, key: Key | None, model: str, asked: Json) -> AsyncIterator[Meter]:
        """The time of a call; who makes it lets the meter hear the reply."""
        self._require()
        began, meter = time.monotonic(), Meter()
        status = CANCELLED
        try:
            yield meter
            status = "ok" if meter.status_code < 400 else f"HTTP {meter.status_code}"
        except Exception as error:
            status = type(error).__name__
            raise
        finally:
            total_s, status = time.monotonic() - began, _because(status)
            await self._call_ended(CallRecord(key, model, asked, status, meter.usage, meter.reply, total_s))

    def _require(self) -> None:
        for keeper in self._keepers:
            keeper.require()

    async def _run_ended(self, ended: RunRecord) -> None:
        self._metrics.end(ended.settings.ensemble, ended.run, ended.status, ended.failures, ended.calls)
        for keeper in self._keepers:
            keeper.run_ended(ended)
        used = [call.usage for call in ended.calls]
        await self._gatekeeper.count_tokens(
            ended.key, sum(usage.prompt_tokens for usage in used), sum(usage.completion_tokens for usage in used)
        )

    async def _call_ended(self, ended: CallRecord) -> None:
        for keeper in self._keepers:
            keeper.call_ended(ended)
        await self._gatekeeper.count_tokens(ended.key, ended.usage.prompt_tokens, ended.usage.completion_tokens)


def _because(status: str) -> str:
    """Why it was cancelled, where the request knows more than that."""
    return records.current().error or status if status == CANCELLED else status


class _Listener:
    """Hands events on, and takes note of the run's id, which a run that fails tells nowhere else."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.run_id: str | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
        self._emit(event)
