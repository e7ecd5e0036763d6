"""Events of the Responses API; panel and judge are `response.fusion_call.*` events on request."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from cappella.ensemble import events
from cappella.ensemble.run import Run
from cappella.gateway.formats.blocks import Block, Blocks, Step
from cappella.gateway.formats.fields import SERVER_TOOL
from cappella.gateway.formats.response_output import (
    annotation,
    fusion_item,
    id_of,
    id_of_item,
    item_of,
    known,
    status_of,
    summary_part,
    text_part,
)
from cappella.gateway.formats.sse import EventEncoder, frame
from cappella.gateway.reply_types import ErrorBody, Response
from cappella.telemetry import run_events
from cappella.types import Json

ShownEvents = Literal["none", "hosted", "all"]
"""Which `response.fusion_call.*` events a client gets: the nine of the hosted product, as it has them, or all."""


class Answered(Protocol):
    """The request that is answered."""

    @property
    def response(self) -> Callable[..., Response]: ...
    def named(self, item: Json) -> Json: ...
    def finished(self, status: str, output: list[Json], run: Run) -> Response: ...
    def failed(self, run_id: str, error: ErrorBody) -> Response: ...


class Events(EventEncoder):
    """Encodes a run as the Responses API's numbered events.

    The panel's item comes first, unless a gate leaves the panel out: then there is none.
    """

    def __init__(self, request: Answered, shown: ShownEvents = "none") -> None:
        self._request = request
        self._named = request.named
        self._response = request.response
        self._run_id = ""
        self._number = 0
        self._shown = shown
        self._begun = events.RunStarted("", (), "")
        self._has_item = False
        self._annotated = 0
        self._blocks = Blocks()

    def waiting(self, run_id: str) -> bytes:
        """The response exists, with its id; it is in progress once its engines are free."""
        return self._created(run_id, "in_progress")

    def queued(self, run_id: str) -> Iterator[bytes]:
        """The first events of a response in the background."""
        yield self._created(run_id, "queued")
        yield self._event("response.queued", response=self._response(run_id, "queued", []))

    def frames(self, event: events.Event) -> Iterator[bytes]:
        if isinstance(event, events.RunStarted):
            self._begun = event
            if not self._run_id:
                yield self._created(event.run_id, "in_progress")
            yield self._event("response.in_progress", response=self._response(event.run_id, "in_progress", []))
        if isinstance(event, events.Told):
            for step in self._blocks.tell(event.text):
                yield from self._step(step)
        elif isinstance(event, events.FinalDelta):
            for step in self._blocks.add(event.chunk, event.citations):
                yield from self._step(step)
        elif self._shown != "none" and not _leaves_panel_out(event):
            yield from self._of_panel(event)

    def _of_panel(self, event: events.Event) -> Iterator[bytes]:
        if not self._has_item:
            self._has_item = True
            self._blocks = Blocks(first_index=1)
            item = {"type": SERVER_TOOL, "id": id_of("fc", self._run_id), "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._fusion("in_progress")
            for name in self._begun.panel:
                yield self._fusion("panel.added", model=name)
        for name, fields in _fusion_events(event, self._begun.judge):
            if self._shown == "all":
                yield self._fusion(name, **_without_error(fields))
            elif name in _HOSTED:
                yield self._fusion(name, **fields)

    def end(self, run: Run) -> Iterator[bytes]:
        for step in self._blocks.close():
            yield from self._step(step)
        items = [self._named(item_of(block, run.run_id, "completed")) for block in self._blocks.closed]
        if self._has_item:
            item = fusion_item(run)
            yield self._fusion("completed")
            yield self._event("response.output_item.done", output_index=0, item=item)
            items.insert(0, item)
        status = status_of(run)
        yield self._event(f"response.{status}", response=self._request.finished(status, items, run))

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        yield self._event("response.failed", response=self._request.failed(self._run_id, error))

    def _created(self, run_id: str, status: str) -> bytes:
        self._run_id = run_id
        return self._event("response.created", response=self._response(run_id, status, []))

    def _step(self, step: Step) -> Iterator[bytes]:
        block, kind = step.block, step.block.kind
        at = {"output_index": block.index}
        item_id = id_of_item(block, self._run_id)
        part = {"item_id": item_id, **at, "content_index": 0}
        match step.change, kind:
            case "opened", _:
                item = {**item_of(block, self._run_id, "in_progress"), **_EMPTY.get(kind, {})}
                yield self._event("response.output_item.added", **at, item=self._named(item))
                if kind == "text":
                    self._annotated = 0
                    yield self._event("response.content_part.added", **part, part=text_part(block))
                if kind == "progress":
                    yield self._summary("part.added", block, part=summary_part(block))
            case "delta", "text":
                logprobs = list(block.logprobs)
                yield self._event("response.output_text.delta", **part, delta=block.text, logprobs=logprobs)
                yield from self._annotations(block, part)
            case "delta", "progress":
                yield self._summary("text.delta", block, delta=block.text)
            case "delta", "reasoning":
                yield self._event("response.reasoning_text.delta", **part, delta=block.text)
            case "delta", "call" if self._is_function(block):
                yield self._event("response.function_call_arguments.delta", item_id=item_id, **at, delta=block.text)
            case "closed", _:
                yield from self._closed(block, part)
                item = self._named(item_of(block, self._run_id, "completed"))
                yield self._event("response.output_item.done", **at, item=item)

    def _annotations(self, block: Block, part: Json) -> Iterator[bytes]:
        for cited in block.citations:
            place = {**part, "annotation_index": self._annotated}
            self._annotated += 1
            yield self._event("response.output_text.annotation.added", **place, annotation=annotation(cited))

    def _is_function(self, block: Block) -> bool:
        """Whether it calls a function; the text of another tool is known at its end only."""
        return bool(self._named(item_of(block, self._run_id, "completed"))["type"] == "function_call")

    def _closed(self, block: Block, part: Json) -> Iterator[bytes]:
        match block.kind:
            case "text":
                fields = {"text": block.text, "logprobs": list(block.logprobs)}
                yield self._event("response.output_text.done", **part, **fields)
                yield self._event("response.content_part.done", **part, part=text_part(block))
            case "progress":
                yield self._summary("text.done", block, text=block.text)
                yield self._summary("part.done", block, part=summary_part(block))
            case "reasoning":
                yield self._event("response.reasoning_text.done", **part, text=block.text)
            case "call" if not self._is_function(block):
                call = {name: value for name, value in part.items() if name != "content_index"}
                text = self._named(item_of(block, self._run_id, "completed"))["input"]
                yield self._event("response.custom_tool_call_input.delta", **call, delta=text)
                yield self._event("response.custom_tool_call_input.done", **call, input=text)
            case "call":
                call = {name: value for name, value in part.items() if name != "content_index"}
                name = block.call.name if block.call else ""
                yield self._event("response.function_call_arguments.done", **call, name=name, arguments=block.text)

    def _summary(self, name: str, block: Block, **fields: Any) -> bytes:
        """An event of the run's progress, which has the place of a summary: clients show that, and know it as no answer."""
        where = {"item_id": id_of_item(block, self._run_id), "output_index": block.index, "summary_index": 0}
        return self._event(f"response.reasoning_summary_{name}", **where, **fields)

    def _fusion(self, name: str, **fields: Any) -> bytes:
        return self._event(f"response.fusion_call.{name}", item_id=id_of("fc", self._run_id), output_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return frame(data, kind)


_EMPTY: Mapping[str, Json] = {
    "text": {"content": []},
    "progress": {"summary": []},
    "reasoning": {"content": []},
    "call": {"arguments": ""},
}


ENDS = tuple(f"event: response.{status}\n".encode() for status in ("completed", "incomplete", "failed"))
"""How the last event of a run's stream begins."""

_HOSTED = (
    "panel.delta panel.reasoning.delta panel.completed panel.failed analysis.in_progress analysis.completed".split()
)
"""The hosted product's events beside those of the item itself: `in_progress`, `panel.added` and `completed`."""


def _leaves_panel_out(event: events.Event) -> bool:
    """Whether the panel has not been asked, as far as is known with this event."""
    if isinstance(event, events.RunStarted):
        return event.gated
    return isinstance(event, events.Gated) and event.decision.bypass


def _without_error(fields: Json) -> Json:
    """The fields, with a failure in `failed_model`: OpenAI's clients take any event with an `error` for the stream's."""
    if "error" not in fields:
        return fields
    return {"model": fields["model"], "failed_model": fields}


def _fusion_events(event: events.Event, judge: str | None) -> list[tuple[str, Json]]:
    """The `response.fusion_call.*` events of one event of the run: name and fields."""
    fields = {name: value for name, value in run_events.told(event).items() if name != "type"}
    match event:
        case events.RunStarted() | events.FinalDelta() | events.Told():
            return []
        case events.AnswerDelta():
            reasoning = [("panel.reasoning.delta", {"model": event.name, "delta": event.reasoning})]
            text = [("panel.delta", {"model": event.name, "delta": event.text})]
            return (reasoning if event.reasoning else []) + (text if event.text else [])
        case events.AnswerDone():
            return [("panel.completed", {**fields, "content": event.answer.content})]
        case events.AnswerFailed():
            return [("panel.failed", known(fields))]
        case events.AnalysisStarted():
            return [("analysis.in_progress", {**fields, "analyst_model": judge, "judge_model": judge})]
        case events.AnalysisDelta():
            return [("analysis.delta", fields)]
        case events.AnalysisDone():
            return [("analysis.completed", fields)]
        case events.Gated():
            return [("gate.decided", fields)]
        case events.RoundStarted():
            return [("round.in_progress", fields)]
        case events.Waiting():
            return [("engine.waiting", fields)]
        case events.Awake():
            return [("engine.awake", fields)]
        case events.GraceStarted():
            return [("grace.started", fields)]
        case events.Reviewed():
            return [("review.completed", fields)]
        case events.ToolCalled():
            return [("tool.called", fields)]
        case events.ToolReturned():
            return [("tool.returned", fields)]
        case events.CitationsRemoved():
            return [("citations.removed", fields)]
