"""Sends spans to one collector; proxies, redirects and environment variables are ignored."""

import logging
import socket
import ssl
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

TIMEOUT_S = 3.0
PATH = "/v1/traces"
_HEADERS = {"Content-Type": "application/x-protobuf"}

logger = logging.getLogger("cappella")


class OtlpExporter(SpanExporter):
    """OTLP over HTTP, called on the batch processor's thread. Spans that cannot be sent are lost, which is logged once."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._is_failing = self._is_shutting_down = False

    def begin_shutdown(self) -> None:
        """From now on, send nothing more after one failure."""
        self._is_shutting_down = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        if self._is_shutting_down and self._is_failing:
            return SpanExportResult.FAILURE
        try:
            status_code = self._post(encode_spans(spans).SerializeToString())
        except (OSError, HTTPException) as error:
            return self._failed(str(error) or type(error).__name__)
        if status_code >= 300:
            return self._failed(f"it replied with status {status_code}")
        if self._is_failing:
            logger.warning("traces are sent to %s again", self._endpoint)
            self._is_failing = False
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to do: no connection stays open between exports."""

    def _post(self, body: bytes) -> int:
        parts = urlsplit(self._endpoint)
        connection = _connection(self._endpoint)
        path = PATH if parts.scheme == "unix" else parts.path.rstrip("/") + PATH
        try:
            connection.request("POST", path, body, _HEADERS)
            reply = connection.getresponse()
            reply.read()
            return reply.status
        finally:
            connection.close()

    def _failed(self, reason: str) -> SpanExportResult:
        if not self._is_failing:
            self._is_failing = True
            logger.warning("traces are lost until %s accepts them: %s", self._endpoint, reason)
        return SpanExportResult.FAILURE


class _SocketConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _connection(endpoint: str) -> HTTPConnection:
    parts = urlsplit(endpoint)
    if parts.scheme == "unix":
        return _SocketConnection(parts.path)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    return HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
