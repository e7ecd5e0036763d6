"""One trace for each request, made when its reply has ended: the pipeline knows nothing of it."""

import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cappella.api.keeping import EndedCall, EndedRun
from cappella.api.visits import Visit
from cappella.errors import PanelFailed
from cappella.runs import Call, Panel
from cappella.tracing import attributes
from cappella.tracing.attributes import Attributes


def make_trace(tracer: Tracer, visit: Visit) -> None:
    """The request, its wait in the queue, and what came of it; as the child of what the caller's `traceparent` names."""
    drawing = _Drawing(tracer)
    caller = TraceContextTextMapPropagator().extract(visit.trace_context, Context())
    ended_at = visit.replied_at or time.monotonic()
    # What a client did wrong is no failure of the server's.
    failed = (visit.status_code or 0) >= 500
    name = f"{visit.method} {visit.route}"
    root = drawing.span(caller, name, visit.began_at, ended_at, attributes.of_request(visit), SpanKind.SERVER, failed)
    if not get_current_span(root).get_span_context().trace_flags.sampled:
        return
    if visit.queued_at is not None:
        waited: Attributes = {} if visit.admitted_at else {"error.type": visit.error or "cancelled"}
        drawing.span(root, "queue", visit.queued_at, visit.admitted_at or ended_at, waited)
    if visit.ended is None or visit.admitted_at is None:
        return
    of_it = (visit.admitted_at, visit.ended_at or ended_at)
    if isinstance(visit.ended, EndedRun):
        drawing.run(root, visit.ended, *of_it)
    else:
        drawing.single(root, visit.ended, visit.route, *of_it)


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

    def run(self, root: Context, ended: EndedRun, began_at: float, ended_at: float) -> None:
        name = f"invoke_workflow {ended.settings.ensemble}"
        within = self.span(root, name, began_at, ended_at, attributes.of_run(ended))
        for number, panel in enumerate(_rounds(ended), 1):
            if panel.calls:
                self._round(within, number, panel, ended)
        for call in ended.calls:
            if call.role != "panel":
                self._call(within, call, ended, _final_reasons(call, ended))

    def single(self, root: Context, ended: EndedCall, route: str | None, began_at: float, ended_at: float) -> None:
        said = attributes.of_single(ended, route)
        name = f"{said['gen_ai.operation.name']} {ended.model}"
        self.span(root, name, began_at, ended_at, said, SpanKind.CLIENT)

    def _round(self, within: Context, number: int, panel: Panel, ended: EndedRun) -> None:
        began_at = min(call.began_at for call in panel.calls)
        ended_at = max(call.ended_at for call in panel.calls)
        inside = self.span(within, f"round {number}", began_at, ended_at, {"cappella.round": number})
        reasons = _reasons(panel)
        for call in panel.calls:
            finished = [answer.finish_reason for answer in panel.answers if answer.call == call]
            self._call(inside, call, ended, finished, reasons.get(call.model))

    def _call(
        self, within: Context, call: Call, ended: EndedRun, finished: Sequence[str] = (), reason: str | None = None
    ) -> None:
        said = attributes.of_call(call, ended.settings, finished, reason)
        name = f"chat {said['gen_ai.request.model']}"
        self.span(within, name, call.began_at, call.ended_at, said, SpanKind.CLIENT)

    def _ns(self, moment: float) -> int:
        return int(moment * 1e9) + self._offset_ns


def _rounds(ended: EndedRun) -> Sequence[Panel]:
    """Of a run that came to nothing, what is known of its last round."""
    if ended.run:
        return ended.run.rounds
    answers = ended.error.answers if isinstance(ended.error, PanelFailed) else ()
    return [Panel(answers, ended.failures, ended.calls)]


def _reasons(panel: Panel) -> Mapping[str, str]:
    """Why those seats gave nothing that gave nothing at all."""
    answered = {answer.call.model for answer in panel.answers}
    failed = {failure.name.partition("~")[0]: failure.reason for failure in panel.failures}
    return {seat: reason for seat, reason in failed.items() if seat not in answered}


def _final_reasons(call: Call, ended: EndedRun) -> Sequence[str]:
    """How the final answer ended, where this is the call that wrote it."""
    wrote = call.role in ("final", "single") and ended.run is not None and ended.run.answer.call == call
    return [ended.run.answer.finish_reason] if wrote and ended.run else []
