"""Metrics read at each scrape: queues, ensembles, engines, GPUs, and the metrics of the engines themselves."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from cappella.engines.base import EngineServer, SingleServer
from cappella.engines.replicas.replica import Replica
from cappella.engines.status import EngineState
from cappella.errors import EngineError
from cappella.placement.gpus import Gpu
from cappella.tools.servers import CountedServer

Rows = Iterable[tuple[Sequence[str], float]]
"""Pairs of label values and the sample's value."""
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Current state of the server. `waiting` and `refused` count requests by ensemble or model; `replicas` are by model."""

    engines: Mapping[str, EngineServer]
    gpus: Sequence[Gpu]
    waiting: Mapping[str, int]
    refused: Mapping[str, int]
    answering: Mapping[str, bool]
    deadlines_s: Mapping[str, float]
    tool_servers: Mapping[str, CountedServer]
    replicas: Mapping[str, Sequence[Replica]]


async def render(now: Snapshot) -> bytes:
    """The snapshot in Prometheus' text format."""
    # An adapter shares its engine's status and metrics.
    servers = {name: engine for name, engine in now.engines.items() if name == engine.status.model}
    pages = await asyncio.gather(*(_page(*each) for each in _labelled(servers)))
    families = [
        *_queues(now),
        *_engines(now.engines, servers),
        *_replicas(now.replicas),
        *_gpus(now.gpus),
        *_tools(now.tool_servers),
    ]
    # In a thread: parsing thousands of lines takes tens of milliseconds.
    return generate_latest(_Collected(families)) + await asyncio.to_thread(_merged, pages)


def _queues(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("waiting", "Requests in the queue", ["name"], (([name], count) for name, count in now.waiting.items()))
    refused = (([name], count) for name, count in now.refused.items())
    yield _counter("queue_refused", "Requests rejected because the queue was full", ["name"], refused)
    answering = (([name], can) for name, can in now.answering.items())
    yield _gauge("ensemble_ready", "1 if the ensemble's quorum and judge are ready, else 0", ["ensemble"], answering)
    deadlines = (([name], seconds) for name, seconds in now.deadlines_s.items())
    yield _gauge("deadline_seconds", "Default deadline of a run", ["ensemble"], deadlines)


def _engines(engines: Mapping[str, EngineServer], servers: Mapping[str, EngineServer]) -> Iterator[Metric]:
    up = (([name], engine.status.state == "ready") for name, engine in engines.items())
    yield _gauge("engine_up", "1 if the engine is ready, else 0", ["model"], up)
    statuses = {name: engine.status for name, engine in servers.items()}
    states = (
        ([name, state], status.state == state) for name, status in statuses.items() for state in get_args(EngineState)
    )
    yield _gauge("engine_state", "1 for the engine's current state, 0 for the others", ["model", "state"], states)
    restarts = (([name], status.restarts) for name, status in statuses.items())
    yield _counter("engine_restarts", "Engine restarts since the gateway started", ["model"], restarts)
    wakes = (([name], status.wakes) for name, status in statuses.items())
    yield _counter("engine_wakes", "Calls that woke the engine after sleep_after_s", ["model"], wakes)


def _replicas(replicas: Mapping[str, Sequence[Replica]]) -> Iterator[Metric]:
    labels, each_of = ["model", "replica"], [(model, each) for model, all_ in replicas.items() for each in all_]
    up = (([model, each.name], each.engine.status.state == "ready") for model, each in each_of)
    yield _gauge("replica_up", "1 if the replica is ready, else 0", labels, up)
    states = (
        ([model, each.name, state], each.engine.status.state == state)
        for model, each in each_of
        for state in get_args(EngineState)
    )
    help_text = "1 for the replica's current state, 0 for the others"
    yield _gauge("replica_state", help_text, [*labels, "state"], states)
    calls = (([model, each.name], each.calls.count) for model, each in each_of)
    yield _gauge("replica_calls", "Calls of the replica in flight", labels, calls)
    failed = (([model, each.name], each.calls.failed) for model, each in each_of)
    yield _counter("replica_calls_failed", "Calls that broke with the replica, repeated or not", labels, failed)


def _gpus(gpus: Sequence[Gpu]) -> Iterator[Metric]:
    yield _gauge(
        "gpu_memory_total_bytes", "Total GPU memory", ["gpu"], (([str(gpu.index)], gpu.total_bytes) for gpu in gpus)
    )
    yield _gauge(
        "gpu_memory_free_bytes", "Free GPU memory", ["gpu"], (([str(gpu.index)], gpu.free_bytes) for gpu in gpus)
    )
    busy = (([str(gpu.index)], gpu.busy_percent / 100) for gpu in gpus if gpu.busy_percent is not None)
    yield _gauge("gpu_busy_ratio", "Share of the last second in which the GPU was busy", ["gpu"], busy)


def _tools(servers: Mapping[str, CountedServer]) -> Iterator[Metric]:
    up = (([name], each.problem is None) for name, each in servers.items())
    yield _gauge("tool_server_up", "1 if the tool server serves, else 0", ["server"], up)
    calls = (([name], each.calls) for name, each in servers.items())
    yield _counter("tool_calls", "Calls of the tool server's tools", ["server"], calls)
    failed = (([name], each.failed) for name, each in servers.items())
    yield _counter("tool_calls_failed", "Calls of its tools that gave an error", ["server"], failed)


def _gauge(name: str, help_text: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(GaugeMetricFamily(f"cappella_{name}", help_text, labels=labels), rows)


def _counter(name: str, help_text: str, labels: Sequence[str], rows: Rows) -> Metric:
    return _filled(CounterMetricFamily(f"cappella_{name}", help_text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _labelled(engines: Mapping[str, EngineServer]) -> Iterator[tuple[Labels, SingleServer]]:
    """Each server with the labels of its own metrics."""
    for model, engine in engines.items():
        servers = engine.servers
        for name, server in servers.items():
            yield {"model": model, "replica": name} if len(servers) > 1 else {"model": model}, server


async def _page(labels: Labels, server: SingleServer) -> tuple[Labels, str]:
    """A server's own metrics; empty if it is not ready or does not answer."""
    try:
        return labels, await server.metrics() if server.status.state == "ready" else ""
    except EngineError:
        return labels, ""


def _merged(pages: Sequence[tuple[Labels, str]]) -> bytes:
    """The servers' metrics with their labels; each family once, as the format requires."""
    families: dict[str, Metric] = {}
    for more, text in pages:
        for family in _families(text):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, **more}
                merged.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    return generate_latest(_Collected(families.values()))


def _families(text: str) -> list[Metric]:
    """The families of one server; empty if its text cannot be parsed."""
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
