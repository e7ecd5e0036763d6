"""OpenTelemetry's tracer with one exporter; no global provider is set."""

import logging

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from cappella.config import Tracing
from cappella.telemetry.records import RequestRecord
from cappella.telemetry.tracing.exporter import OtlpExporter
from cappella.telemetry.tracing.spans import make_trace
from cappella.version import __version__

EXPORT_EVERY_MS = 1000
MAX_QUEUED_SPANS = 8192
MAX_SPANS_PER_EXPORT = 512

# The exporter logs lost spans once; OpenTelemetry's queue would log them every 20 seconds.
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)


class Tracer:
    """Exports spans on a thread; while the collector accepts none and the queue is full, the oldest spans are dropped."""

    def __init__(self, tracing: Tracing) -> None:
        meters = NoOpMeterProvider()
        self._exporter = OtlpExporter(tracing.endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(tracing.share)),
            resource=Resource({"service.name": "cappella", "service.version": __version__}),
            shutdown_on_exit=False,
            span_limits=SpanLimits(),
            meter_provider=meters,
        )
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MAX_QUEUED_SPANS,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=MAX_SPANS_PER_EXPORT,
            meter_provider=meters,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("cappella", __version__)

    def request_ended(self, record: RequestRecord) -> None:
        """Make the trace of a request that called an ensemble or a model."""
        if record.target is not None:
            make_trace(self._tracer, record)

    def flush(self) -> None:
        """Send the queued spans now; blocks."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send the queued spans if the collector accepts them; blocks for a few seconds at most."""
        self._exporter.begin_shutdown()
        self._provider.shutdown()
