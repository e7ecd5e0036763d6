"""A fake OpenTelemetry collector, OTLP over HTTP on a port or a Unix socket, and a gateway config that uses it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cappella.config import Config
from support.fake_engines import gateway_config


@dataclass
class Collected:
    """Received `spans`, with `bodies` and `headers` of the requests; `status` is the status of each reply."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    status: int = 200

    def named(self, start: str) -> list[Span]:
        return [span for span in self.spans if span.name.startswith(start)]

    def one(self, start: str) -> Span:
        (span,) = self.named(start)
        return span

    def children(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_span_id == parent.span_id]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.status == 200:
            message = ExportTraceServiceRequest.FromString(body)
            self.spans += [s for each in message.resource_spans for scope in each.scope_spans for s in scope.spans]
        return web.Response(status=self.status)


def attributes(span: Span) -> Mapping[str, Any]:
    """A span's attributes."""
    out: dict[str, Any] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, str(kind))
        out[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return out


@asynccontextmanager
async def running_collector(socket: Path | None = None) -> AsyncIterator[Collected]:
    """A running collector; `url` is for `server.tracing.endpoint`."""
    collected = Collected()
    app = web.Application()
    app.router.add_post("/v1/traces", collected.take)
    runner = web.AppRunner(app)
    await runner.setup()
    if socket:
        await web.UnixSite(runner, str(socket)).start()
        collected.url = f"unix:{socket}"
    else:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        collected.url = f"http://{host}:{port}"
    try:
        yield collected
    finally:
        await runner.cleanup()


def traced(url: str, **server: Any) -> Config:
    """The config of a gateway that sends traces to `url`."""
    config = gateway_config()
    tracing = {"endpoint": url, **server.pop("tracing", {})}
    return Config.model_validate({**config.model_dump(), "server": {**server, "tracing": tracing}})


async def ask(url: str, path: str = "/v1/chat/completions", headers: Any = None, **more: Any) -> Any:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "a-secret-question"}], **more}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body, headers=headers) as reply:
        return await reply.read()
