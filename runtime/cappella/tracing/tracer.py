"""Where spans go: OpenTelemetry's own machinery with one exporter; nothing of it is global."""

import logging

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from cappella import __version__
from cappella.api.visits import Visit
from cappella.config import Tracing
from cappella.tracing.collector import Collector
from cappella.tracing.spans import make_trace

EXPORT_EVERY_MS = 1000
MOST_WAITING_SPANS = 8192
MOST_SPANS_AT_ONCE = 512

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
            max_queue_size=MOST_WAITING_SPANS,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=MOST_SPANS_AT_ONCE,
            meter_provider=meters,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("cappella", __version__)

    def visited(self, visit: Visit) -> None:
        """Make the trace of a request that asked an ensemble, or a model, for something."""
        if visit.asked is not None:
            make_trace(self._tracer, visit)

    def flush(self) -> None:
        """Send what waits, now; blocks."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send what waits, if it is taken; blocks for a few seconds at most."""
        self._collector.hurry()
        self._provider.shutdown()
