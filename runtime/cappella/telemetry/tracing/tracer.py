"""Where spans go: OpenTelemetry's own machinery with one exporter; nothing of it is global."""

import logging

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from cappella.config import Tracing
from cappella.telemetry.records import RequestRecord
from cappella.telemetry.tracing.exporter import Collector
from cappella.telemetry.tracing.spans import make_trace
from cappella.version import __version__

EXPORT_EVERY_MS = 1000
MAX_WAITING_SPANS = 8192
MAX_SPANS_AT_ONCE = 512

# The collector says once that spans are lost; the queue before it would say so every twenty seconds.
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)


class Tracer:
    """Spans go to the collector in a thread of its own; while it takes none, the oldest of those that wait are lost."""

    def __init__(self, tracing: Tracing) -> None:
        meters = NoOpMeterProvider()
        self._collector = Collector(tracing.endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(tracing.share)),
            resource=Resource({"service.name": "cappella", "service.version": __version__}),
            shutdown_on_exit=False,
            span_limits=SpanLimits(),
            meter_provider=meters,
        )
        self._processor = BatchSpanProcessor(
            self._collector,
            max_queue_size=MAX_WAITING_SPANS,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=MAX_SPANS_AT_ONCE,
            meter_provider=meters,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("cappella", __version__)

    def visited(self, record: RequestRecord) -> None:
        """Make the trace of a request that asked an ensemble, or a model, for something."""
        if record.asked is not None:
            make_trace(self._tracer, record)

    def flush(self) -> None:
        """Send what waits, now; blocks."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send what waits, if it is taken; blocks for a few seconds at most."""
        self._collector.hurry()
        self._provider.shutdown()
