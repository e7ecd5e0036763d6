"""Sends spans to one collector and nowhere else: no proxy, no redirect, no variable of the environment has a say."""

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


class Collector(SpanExporter):
    """OTLP over HTTP, called by the batch processor in a thread of its own. What cannot be sent is lost, and told once."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._lost = self._hurried = False

    def hurry(self) -> None:
        """From now on, try no more once one try has failed."""
        self._hurried = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        if self._hurried and self._lost:
            return SpanExportResult.FAILURE
        try:
            status_code = self._post(encode_spans(spans).SerializeToString())
        except (OSError, HTTPException) as error:
            return self._failed(str(error) or type(error).__name__)
        if status_code >= 300:
            return self._failed(f"it answered {status_code}")
        if self._lost:
            logger.warning("traces reach %s again", self._endpoint)
            self._lost = False
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held open between two exports."""

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

    def _failed(self, why: str) -> SpanExportResult:
        if not self._lost:
            self._lost = True
            logger.warning("traces are lost until %s takes them: %s", self._endpoint, why)
        return SpanExportResult.FAILURE


class _SocketConnection(HTTPConnection):
    """HTTP over a socket of this machine."""

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
