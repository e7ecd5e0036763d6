"""What is kept of a request that was let in, when it ends, however it ends."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cappella.access.gatekeeper import Gatekeeper
from cappella.access.store import Key
from cappella.api.meter import Meter
from cappella.ensemble.pipeline import Pipeline
from cappella.events import AnswerDone, Emit, Event, RunStarted
from cappella.metrics import Metrics
from cappella.options import Settings
from cappella.runs import Call, Run
from cappella.types import Prompt, Usage

CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A request to an ensemble. `status` is the run's own, `cancelled`, or the name of the error that ended it.

    `calls` are all of the run's, or, where there is no `run`, those of the members that had answered.
    """

    run_id: str | None
    key: Key | None
    prompt: Prompt
    settings: Settings
    status: str
    run: Run | None
    calls: Sequence[Call]
    total_s: float


@dataclass(frozen=True, slots=True)
class EndedCall:
    """What was said to one model alone. `status` is `ok`, `cancelled`, or the name of the error or HTTP status."""

    key: Key | None
    model: str
    status: str
    usage: Usage
    total_s: float


class Keeping:
    """Runs go through here, and so do calls of single models; at the end of each `_keep_run` or `_keep_call` is told."""

    def __init__(self, metrics: Metrics, gatekeeper: Gatekeeper) -> None:
        self._metrics = metrics
        self._gatekeeper = gatekeeper

    async def run(self, pipeline: Pipeline, key: Key | None, prompt: Prompt, settings: Settings, emit: Emit) -> Run:
        """See `Pipeline.run`."""
        self._metrics.begin(settings.ensemble)
        began, heard = time.monotonic(), _Listener(emit)
        run, status = None, CANCELLED
        try:
            run = await pipeline.run(prompt, settings, heard)
            status = run.status
            return run
        except Exception as error:
            status = type(error).__name__
            raise
        finally:
            calls = run.calls if run else heard.calls
            total_s = time.monotonic() - began
            await self._keep_run(EndedRun(heard.run_id, key, prompt, settings, status, run, calls, total_s))

    @asynccontextmanager
    async def call(self, key: Key | None, model: str) -> AsyncIterator[Meter]:
        """The time of a call; who makes it lets the meter hear the reply."""
        began, meter = time.monotonic(), Meter()
        status = CANCELLED
        try:
            yield meter
            status = "ok" if meter.status_code < 400 else f"HTTP {meter.status_code}"
        except Exception as error:
            status = type(error).__name__
            raise
        finally:
            await self._keep_call(EndedCall(key, model, status, meter.usage, time.monotonic() - began))

    async def _keep_run(self, ended: EndedRun) -> None:
        self._metrics.end(ended.settings.ensemble, ended.run, ended.status)
        used = [call.usage for call in ended.calls] if ended.run else []
        await self._gatekeeper.count(
            ended.key, sum(usage.prompt_tokens for usage in used), sum(usage.completion_tokens for usage in used)
        )

    async def _keep_call(self, ended: EndedCall) -> None:
        await self._gatekeeper.count(ended.key, ended.usage.prompt_tokens, ended.usage.completion_tokens)


class _Listener:
    """Hands events on, and takes note of what only they say of a run that fails."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.run_id: str | None = None
        self.calls: list[Call] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
        elif isinstance(event, AnswerDone) and event.answer.call not in self.calls:
            self.calls.append(event.answer.call)
        self._emit(event)
