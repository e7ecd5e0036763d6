"""Builds the trace of a request from its record, after its reply has ended."""

import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.run import Call, Panel
from cappella.telemetry.records import CallRecord, RequestRecord, RunRecord
from cappella.telemetry.tracing import attributes
from cappella.telemetry.tracing.attributes import Attributes


def make_trace(tracer: Tracer, record: RequestRecord) -> None:
    """Spans of the request, its time in the queue, and its run or call; a child of the caller's `traceparent`, if given."""
    builder = _SpanBuilder(tracer)
    caller = TraceContextTextMapPropagator().extract(record.trace_context, Context())
    ended_at = record.replied_at or time.monotonic()
    # A client error is not a failure of the server.
    failed = (record.status_code or 0) >= 500
    name = f"{record.method} {record.route}"
    root = builder.span(caller, name, record.began_at, ended_at, attributes.of_request(record), SpanKind.SERVER, failed)
    if not get_current_span(root).get_span_context().trace_flags.sampled:
        return
    if record.queued_at is not None:
        waited: Attributes = {} if record.admitted_at else {"error.type": record.error or "cancelled"}
        builder.span(root, "queue", record.queued_at, record.admitted_at or ended_at, waited)
    if record.outcome is None or record.admitted_at is None:
        return
    times = (record.admitted_at, record.ended_at or ended_at)
    if isinstance(record.outcome, RunRecord):
        builder.run(root, record.outcome, *times)
    else:
        builder.single(root, record.outcome, record.route, *times)


class _SpanBuilder:
    """Makes spans from times on the clock of `time.monotonic`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def span(
        self,
        parent: Context,
        name: str,
        began_at: float,
        ended_at: float,
        attrs: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool | None = None,
    ) -> Context:
        """Make a span and return the context for its children. `failed` defaults to whether `attrs` has `error.type`."""
        span = self._tracer.start_span(name, parent, kind, attrs, start_time=self._ns(began_at))
        if "error.type" in attrs if failed is None else failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(ended_at))
        return set_span_in_context(span, Context())

    def run(self, root: Context, record: RunRecord, began_at: float, ended_at: float) -> None:
        name = f"invoke_workflow {record.settings.ensemble}"
        parent = self.span(root, name, began_at, ended_at, attributes.of_run(record))
        rounds = _rounds(record)
        for number, panel in enumerate(rounds, 1):
            if panel.calls:
                self._round(parent, number, panel, record)
        members = [call for panel in rounds for call in panel.calls]
        for call in record.calls:
            if call not in members:
                self._call(parent, call, record, _final_reasons(call, record))

    def single(self, root: Context, record: CallRecord, route: str | None, began_at: float, ended_at: float) -> None:
        attrs = attributes.of_single(record, route)
        name = f"{attrs['gen_ai.operation.name']} {record.model}"
        self.span(root, name, began_at, ended_at, attrs, SpanKind.CLIENT)

    def _round(self, parent: Context, number: int, panel: Panel, record: RunRecord) -> None:
        began_at = min(call.began_at for call in panel.calls)
        ended_at = max(call.ended_at for call in panel.calls)
        span = self.span(parent, f"round {number}", began_at, ended_at, {"cappella.round": number})
        reasons = _reasons(panel)
        for call in panel.calls:
            finished = [answer.finish_reason for answer in panel.answers if answer.call == call]
            self._call(span, call, record, finished, reasons.get(call.seat))

    def _call(
        self, parent: Context, call: Call, record: RunRecord, finished: Sequence[str] = (), reason: str | None = None
    ) -> None:
        attrs = attributes.of_call(call, record.settings, finished, reason)
        name = f"chat {attrs['gen_ai.request.model']}"
        self.span(parent, name, call.began_at, call.ended_at, attrs, SpanKind.CLIENT)

    def _ns(self, at_s: float) -> int:
        return int(at_s * 1e9) + self._offset_ns


_OF_MEMBERS = ("panel", "lookup")


def _rounds(record: RunRecord) -> Sequence[Panel]:
    """The rounds of a run; of a failed run, the known part of its last round."""
    if record.run:
        return record.run.rounds
    answers = record.error.answers if isinstance(record.error, PanelFailed) else ()
    return [Panel(answers, record.failures, [call for call in record.calls if call.role in _OF_MEMBERS])]


def _reasons(panel: Panel) -> Mapping[str, str]:
    """Reason codes of the seats without any answer."""
    answered = {answer.call.seat for answer in panel.answers}
    failed = {failure.name.partition("~")[0]: failure.reason for failure in panel.failures}
    return {seat: reason for seat, reason in failed.items() if seat not in answered}


def _final_reasons(call: Call, record: RunRecord) -> Sequence[str]:
    """Finish reasons of the final answer, if this call wrote it."""
    is_final = call.role in ("final", "single") and record.run is not None and record.run.answer.call == call
    return [record.run.answer.finish_reason] if is_final and record.run else []
