"""What stands as it is when somebody looks: engines, GPUs, queues; the engines' own figures beside ours."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from cappella.engines.base import EngineServer
from cappella.engines.status import EngineState
from cappella.errors import EngineError
from cappella.placement.gpus import Gpu

Rows = Iterable[tuple[Sequence[str], float]]
"""The values of the labels, and the figure's own."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Engines and GPUs; who waits and who was refused, by ensemble or model; which ensembles can answer, and by when."""

    engines: Mapping[str, EngineServer]
    gpus: Sequence[Gpu]
    waiting: Mapping[str, int]
    refused: Mapping[str, int]
    answering: Mapping[str, bool]
    deadlines_s: Mapping[str, float]


async def render(now: Snapshot) -> bytes:
    """All of it in Prometheus' text form."""
    # An adapter has its engine's status, and its engine's figures.
    servers = {name: engine for name, engine in now.engines.items() if name == engine.status.model}
    texts = await asyncio.gather(*(_page(engine) for engine in servers.values()))
    named = list(zip(servers, texts, strict=True))
    families = [*_queues(now), *_engines(now.engines, servers), *_gpus(now.gpus)]
    # Parsing thousands of lines takes tens of milliseconds: not in the event loop.
    return generate_latest(_Collected(families)) + await asyncio.to_thread(_merged, named)


def _queues(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("waiting", "In the queue", ["name"], (([name], count) for name, count in now.waiting.items()))
    refused = (([name], count) for name, count in now.refused.items())
    yield _counter("queue_refused", "For whom the queue had no place", ["name"], refused)
    answering = (([name], can) for name, can in now.answering.items())
    yield _gauge("ensemble_ready", "1 if its quorum and its judge are up", ["ensemble"], answering)
    deadlines = (([name], seconds) for name, seconds in now.deadlines_s.items())
    yield _gauge("deadline_seconds", "Of a run that says nothing of it", ["ensemble"], deadlines)


def _engines(called: Mapping[str, EngineServer], servers: Mapping[str, EngineServer]) -> Iterator[Metric]:
    up = (([name], engine.status.state == "ready") for name, engine in called.items())
    yield _gauge("engine_up", "1 if the engine is ready", ["model"], up)
    statuses = {name: engine.status for name, engine in servers.items()}
    states = (
        ([name, state], status.state == state) for name, status in statuses.items() for state in get_args(EngineState)
    )
    yield _gauge("engine_state", "1 for the state that the engine is in", ["model", "state"], states)
    restarts = (([name], status.restarts) for name, status in statuses.items())
    yield _counter("engine_restarts", "Since the gateway's start", ["model"], restarts)


def _gpus(gpus: Sequence[Gpu]) -> Iterator[Metric]:
    yield _gauge("gpu_memory_total_bytes", "Of a GPU", ["gpu"], (([str(gpu.index)], gpu.total_bytes) for gpu in gpus))
    yield _gauge("gpu_memory_free_bytes", "Of a GPU", ["gpu"], (([str(gpu.index)], gpu.free_bytes) for gpu in gpus))
    busy = (([str(gpu.index)], gpu.busy_percent / 100) for gpu in gpus if gpu.busy_percent is not None)
    yield _gauge("gpu_busy_ratio", "Share of the last second", ["gpu"], busy)


def _gauge(name: str, about: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(GaugeMetricFamily(f"cappella_{name}", about, labels=labels), rows)


def _counter(name: str, about: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(CounterMetricFamily(f"cappella_{name}", about, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


async def _page(engine: EngineServer) -> str:
    """The engine's own figures, as it sends them."""
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
