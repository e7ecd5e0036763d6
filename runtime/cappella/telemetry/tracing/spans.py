"""One trace for each request, made when its reply has ended: the pipeline knows nothing of it."""

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
    """The request, its wait in the queue, and what came of it; as the child of what the caller's `traceparent` names."""
    drawing = _Drawing(tracer)
    caller = TraceContextTextMapPropagator().extract(record.trace_context, Context())
    ended_at = record.replied_at or time.monotonic()
    # What a client did wrong is no failure of the server's.
    failed = (record.status_code or 0) >= 500
    name = f"{record.method} {record.route}"
    root = drawing.span(caller, name, record.began_at, ended_at, attributes.of_request(record), SpanKind.SERVER, failed)
    if not get_current_span(root).get_span_context().trace_flags.sampled:
        return
    if record.queued_at is not None:
        waited: Attributes = {} if record.admitted_at else {"error.type": record.error or "cancelled"}
        drawing.span(root, "queue", record.queued_at, record.admitted_at or ended_at, waited)
    if record.ended is None or record.admitted_at is None:
        return
    of_it = (record.admitted_at, record.ended_at or ended_at)
    if isinstance(record.ended, RunRecord):
        drawing.run(root, record.ended, *of_it)
    else:
        drawing.single(root, record.ended, record.route, *of_it)


class _Drawing:
    """Puts spans where they were on the clock of `time.monotonic`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def span(
        self,
        parent: Context,
        name: str,
        began_at: float,
        ended_at: float,
        said: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool | None = None,
    ) -> Context:
        """Draw one, and return what its children are drawn in. It has failed if it names an error, unless `failed` says."""
        span = self._tracer.start_span(name, parent, kind, said, start_time=self._ns(began_at))
        if "error.type" in said if failed is None else failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(ended_at))
        return set_span_in_context(span, Context())

    def run(self, root: Context, ended: RunRecord, began_at: float, ended_at: float) -> None:
        name = f"invoke_workflow {ended.settings.ensemble}"
        within = self.span(root, name, began_at, ended_at, attributes.of_run(ended))
        for number, panel in enumerate(_rounds(ended), 1):
            if panel.calls:
                self._round(within, number, panel, ended)
        for call in ended.calls:
            if call.role != "panel":
                self._call(within, call, ended, _final_reasons(call, ended))

    def single(self, root: Context, ended: CallRecord, route: str | None, began_at: float, ended_at: float) -> None:
        said = attributes.of_single(ended, route)
        name = f"{said['gen_ai.operation.name']} {ended.model}"
        self.span(root, name, began_at, ended_at, said, SpanKind.CLIENT)

    def _round(self, within: Context, number: int, panel: Panel, ended: RunRecord) -> None:
        began_at = min(call.began_at for call in panel.calls)
        ended_at = max(call.ended_at for call in panel.calls)
        inside = self.span(within, f"round {number}", began_at, ended_at, {"cappella.round": number})
        reasons = _reasons(panel)
        for call in panel.calls:
            finished = [answer.finish_reason for answer in panel.answers if answer.call == call]
            self._call(inside, call, ended, finished, reasons.get(call.seat))

    def _call(
        self, within: Context, call: Call, ended: RunRecord, finished: Sequence[str] = (), reason: str | None = None
    ) -> None:
        said = attributes.of_call(call, ended.settings, finished, reason)
        name = f"chat {said['gen_ai.request.model']}"
        self.span(within, name, call.began_at, call.ended_at, said, SpanKind.CLIENT)

    def _ns(self, moment: float) -> int:
        return int(moment * 1e9) + self._offset_ns


def _rounds(ended: RunRecord) -> Sequence[Panel]:
    """Of a run that came to nothing, what is known of its last round."""
    if ended.run:
        return ended.run.rounds
    answers = ended.error.answers if isinstance(ended.error, PanelFailed) else ()
    return [Panel(answers, ended.failures, [call for call in ended.calls if call.role == "panel"])]


def _reasons(panel: Panel) -> Mapping[str, str]:
    """Why those seats gave nothing that gave nothing at all."""
    answered = {answer.call.seat for answer in panel.answers}
    failed = {failure.name.partition("~")[0]: failure.reason for failure in panel.failures}
    return {seat: reason for seat, reason in failed.items() if seat not in answered}


def _final_reasons(call: Call, ended: RunRecord) -> Sequence[str]:
    """How the final answer ended, where this is the call that wrote it."""
    wrote = call.role in ("final", "single") and ended.run is not None and ended.run.answer.call == call
    return [ended.run.answer.finish_reason] if wrote and ended.run else []
