"""Figures in Prometheus' form: our own per run, stage and member, and the engines' own beside them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cappella.engines.vllm import VllmEngine
from cappella.errors import EngineError
from cappella.placement.gpus import Gpu
from cappella.runs import Run
from cappella.types import EngineStatus

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry per gateway; nothing here is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter("cappella_runs", "Runs that ended", ["ensemble", "status"], registry=self.registry)
        self._in_flight = Gauge("cappella_runs_in_flight", "Runs under way", ["ensemble"], registry=self.registry)
        self._stages = Histogram(
            "cappella_stage_seconds", "Time per stage of a run", ["ensemble", "stage"],
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._calls = Histogram(
            "cappella_call_seconds", "Time per engine call", ["model", "role"],
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter(
            "cappella_tokens", "Tokens of engine calls", ["model", "role", "kind"], registry=self.registry
        )
        self._failures = Counter(
            "cappella_member_failures", "Members that gave no answer", ["model", "reason"], registry=self.registry
        )
        self._up = Gauge("cappella_engine_up", "1 if the engine is ready", ["model"], registry=self.registry)
        self._waiting = Gauge("cappella_waiting", "In the queue", ["name"], registry=self.registry)
        self._gpu_total = Gauge("cappella_gpu_memory_total_bytes", "Of a GPU", ["gpu"], registry=self.registry)
        self._gpu_free = Gauge("cappella_gpu_memory_free_bytes", "Of a GPU", ["gpu"], registry=self.registry)
        self._gpu_busy = Gauge("cappella_gpu_busy_ratio", "Share of the last second", ["gpu"], registry=self.registry)
        self._restarts = Gauge("cappella_engine_restarts", "Restarts since start", ["model"], registry=self.registry)

    def begin(self, ensemble: str) -> None:
        self._in_flight.labels(ensemble).inc()

    def end(self, ensemble: str, run: Run | None, status: str) -> None:
        """Count one run; `run` is None where it ended in an error, and `status` then names it."""
        self._in_flight.labels(ensemble).dec()
        self._runs.labels(ensemble, status).inc()
        if run is not None:
            self._observe(ensemble, run)

    async def render(self, engines: Mapping[str, VllmEngine], gpus: Sequence[Gpu], waiting: Mapping[str, int]) -> bytes:
        """Everything, as text."""
        for name, count in waiting.items():
            self._waiting.labels(name).set(count)
        for gpu in gpus:
            self._gpu_total.labels(gpu.index).set(gpu.total_bytes)
            self._gpu_free.labels(gpu.index).set(gpu.free_bytes)
            if gpu.busy_percent is not None:
                self._gpu_busy.labels(gpu.index).set(gpu.busy_percent / 100)
        for name, engine in engines.items():
            self._set_engine(name, engine.status)
        servers = {name: engine for name, engine in engines.items() if name == engine.status.model}
        texts = await asyncio.gather(*(_engine_metrics(engine) for engine in servers.values()))
        named = list(zip(servers, texts, strict=True))
        # Parsing thousands of lines takes tens of milliseconds: not in the event loop.
        engines_own = await asyncio.to_thread(_merged, named)
        return generate_latest(self.registry) + engines_own

    def _observe(self, ensemble: str, run: Run) -> None:
        stages = {
            "panel": run.timings.panel_s,
            "analysis": run.timings.analysis_s,
            "first_token": run.timings.first_token_s,
            "total": run.timings.total_s,
        }
        for stage, seconds in stages.items():
            if seconds is not None:
                self._stages.labels(ensemble, stage).observe(seconds)
        for call in run.calls:
            self._calls.labels(call.model, call.role).observe(call.total_s)
            self._tokens.labels(call.model, call.role, "prompt").inc(call.usage.prompt_tokens)
            self._tokens.labels(call.model, call.role, "cached").inc(call.usage.cached_tokens)
            self._tokens.labels(call.model, call.role, "completion").inc(call.usage.completion_tokens)
        for failure in run.failures:
            self._failures.labels(failure.name, failure.reason).inc()

    def _set_engine(self, name: str, status: EngineStatus) -> None:
        self._up.labels(name).set(status.state == "ready")
        self._restarts.labels(name).set(status.restarts)


async def _engine_metrics(engine: VllmEngine) -> str:
    try:
        return await engine.metrics() if engine.status.state == "ready" else ""
    except EngineError:
        return ""


def _merged(texts: Sequence[tuple[str, str]]) -> bytes:
    """The engines' families with a `model` label, each family once, as the format demands."""
    families: dict[str, Metric] = {}
    for model, text in texts:
        for family in _families(text):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "model": model}
                whole.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    return generate_latest(_Collected(families.values()))


def _families(text: str) -> list[Metric]:
    """The families of one engine; none if what it sent is no such text."""
    try:
        return list(text_string_to_metric_families(text))
    except ValueError:
        return []


class _Collected(CollectorRegistry):
    """A registry of families that are already collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
