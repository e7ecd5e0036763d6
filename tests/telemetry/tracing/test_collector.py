"""Export of traces to the collector and nowhere else; an absent collector affects no run."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from cappella.errors import ConfigError
from cappella.gateway import serve
from cappella.telemetry import tracing
from cappella.telemetry.tracing import exporter
from cappella.telemetry.tracing.exporter import OtlpExporter
from support.fake_engines import FakeEngines, serving
from support.otlp_collector import ask, running_collector, traced
from support.real_deployment import ROOT
from support.stub_engine import environment


def a_span() -> Any:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("one")
    span.end()
    return span


@pytest.fixture
def closed_port() -> str:
    """The URL of a port where no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_a_collector_can_be_a_unix_socket(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with (
        running_collector(tmp_path / "otel.sock") as collected,
        serving(fake_engines, traced(collected.url)) as url,
    ):
        await ask(url)
    assert collected.one("invoke_workflow default")


async def test_environment_variables_are_ignored(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": closed_port,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": closed_port,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-leak=yes",
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "somebody",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_RESOURCE_ATTRIBUTES": "leak=yes",
        "OTEL_TRACES_SAMPLER": "always_off",
        "HTTP_PROXY": closed_port,
        "http_proxy": closed_port,
        "ALL_PROXY": closed_port,
    }.items():
        monkeypatch.setenv(name, value)
    async with running_collector() as collected, serving(fake_engines, traced(collected.url)) as url:
        await ask(url)
    assert collected.one("invoke_workflow default")
    assert not [name for headers in collected.headers for name in headers if name.lower() == "x-leak"]
    assert b"leak" not in b"".join(collected.bodies)
    assert not [name for name in os.environ if name.startswith("OTEL_")]


async def test_an_absent_collector_affects_no_run_and_is_logged_once(
    fake_engines: FakeEngines, closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(fake_engines, traced(closed_port)) as url:
        replies = await asyncio.gather(*(ask(url) for _ in range(3)))
    assert all(b"The final answer" in reply for reply in replies)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"traces are lost until {closed_port} accepts them".partition(":")[0]
    ]


async def test_a_recovered_collector_is_logged_and_gets_the_next_spans(caplog: pytest.LogCaptureFixture) -> None:
    async with running_collector() as collected:
        exporter = OtlpExporter(collected.url)
        results = []
        for status in (503, 503, 200, 200):
            collected.status = status
            results.append(await asyncio.to_thread(exporter.export, [a_span()]))
    failure, success = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    assert results == [failure, failure, success, success]
    assert len(collected.spans) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.WARNING]
    assert "it replied with status 503" in caplog.text
    assert "again" in caplog.records[-1].getMessage()


@pytest.fixture
def hanging_port() -> Iterator[socket.socket]:
    """A port that accepts connections and never replies."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


async def test_a_hanging_collector_delays_no_run(
    fake_engines: FakeEngines, hanging_port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TIMEOUT_S", 3600.0)
    async with serving(fake_engines, traced(f"http://127.0.0.1:{hanging_port.getsockname()[1]}")) as url:
        assert b"The final answer" in await ask(url)
        hanging_port.close()


def test_a_hanging_collector_is_tried_once_at_shutdown(
    hanging_port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TIMEOUT_S", 0.1)
    exporter_at_shutdown = OtlpExporter(f"http://127.0.0.1:{hanging_port.getsockname()[1]}")
    exporter_at_shutdown.begin_shutdown()
    assert [exporter_at_shutdown.export([a_span()]) for _ in range(3)] == [SpanExportResult.FAILURE] * 3
    hanging_port.setblocking(False)
    hanging_port.accept()[0].close()
    with pytest.raises(BlockingIOError):
        hanging_port.accept()


async def test_a_redirect_is_not_followed(closed_port: str) -> None:
    async with running_collector() as collected:
        collected.status = 307
        assert await asyncio.to_thread(OtlpExporter(collected.url).export, [a_span()]) == SpanExportResult.FAILURE


def test_a_missing_extra_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "REQUIRED_MODULES", ("opentelemetry_missing.sdk",))
    config = traced("http://127.0.0.1:4318")
    with pytest.raises(ConfigError, match=r"server\.tracing: .* is not installed\. Install the extra otel"):
        serve.serve(lambda: config, None)


def test_without_tracing_nothing_of_opentelemetry_is_imported() -> None:
    code = "import sys, cappella.gateway.serve, cappella.runtime; assert not [m for m in sys.modules if m.startswith('opentel')]"
    subprocess.run([sys.executable, "-c", code], env=environment(ROOT / "runtime"), check=True)
