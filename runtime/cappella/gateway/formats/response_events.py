"""Events and output items of the Responses API; panel and judge are `response.fusion_call.*` events on request."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cappella.ensemble import events
from cappella.ensemble.run import Run
from cappella.gateway.formats.blocks import Block, Blocks, Step
from cappella.gateway.formats.fields import Fusion
from cappella.gateway.formats.sse import EventEncoder, frame
from cappella.gateway.reply_types import ErrorBody, Response
from cappella.telemetry import trace
from cappella.types import Json


class Events(EventEncoder):
    """Encodes a run as the Responses API's numbered events."""

    def __init__(
        self, options: Fusion, response: Callable[..., Response], named: Callable[[Json], Json] = lambda item: item
    ) -> None:
        self._options = options
        self._named = named
        self._response = response
        self._run_id = ""
        self._number = 0
        self._shows_panel = bool(options.include_events)
        self._blocks = Blocks(first_index=int(self._shows_panel))

    def frames(self, event: events.Event) -> Iterator[bytes]:
        if isinstance(event, events.RunStarted):
            self._run_id = event.run_id
            begun = self._response(event.run_id, "in_progress", [])
            yield self._event("response.created", response=begun)
            yield self._event("response.in_progress", response=begun)
            if self._shows_panel:
                item = {"type": "fusion_call", "id": id_of("fc", event.run_id), "status": "in_progress"}
                yield self._event("response.output_item.added", output_index=0, item=item)
        if isinstance(event, events.FinalDelta):
            for step in self._blocks.add(event.chunk):
                yield from self._step(step)
        elif self._shows_panel:
            for name, fields in _fusion_events(event):
                yield self._fusion(name, **fields)

    def end(self, run: Run) -> Iterator[bytes]:
        for step in self._blocks.close():
            yield from self._step(step)
        items = [self._named(item_of(block, run.run_id, "completed")) for block in self._blocks.closed]
        if self._shows_panel:
            item = fusion_item(run, self._options)
            yield self._fusion("completed", fusion=item["fusion"])
            yield self._event("response.output_item.done", output_index=0, item=item)
            items.insert(0, item)
        status = status_of(run)
        response = self._response(run.run_id, status, items, run)
        yield self._event(f"response.{status}", response=response)

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        error = {**error, "code": error["code"] or "server_error"}
        yield self._event("response.failed", response=self._response(self._run_id, "failed", [], error=dict(error)))

    def _step(self, step: Step) -> Iterator[bytes]:
        block, kind = step.block, step.block.kind
        at = {"output_index": block.index}
        item_id = _item_id(block, self._run_id)
        part = {"item_id": item_id, **at, "content_index": 0}
        match step.change, kind:
            case "opened", _:
                item = {**item_of(block, self._run_id, "in_progress"), **_EMPTY.get(kind, {})}
                yield self._event("response.output_item.added", **at, item=self._named(item))
                if kind == "text":
                    yield self._event("response.content_part.added", **part, part=_text_part(block))
            case "delta", "text":
                logprobs = list(block.logprobs)
                yield self._event("response.output_text.delta", **part, delta=block.text, logprobs=logprobs)
            case "delta", "reasoning":
                yield self._event("response.reasoning_text.delta", **part, delta=block.text)
            case "delta", "call" if self._is_function(block):
                yield self._event("response.function_call_arguments.delta", item_id=item_id, **at, delta=block.text)
            case "closed", _:
                yield from self._closed(block, part)
                item = self._named(item_of(block, self._run_id, "completed"))
                yield self._event("response.output_item.done", **at, item=item)

    def _is_function(self, block: Block) -> bool:
        """Whether it calls a function; the text of another tool is known at its end only."""
        return bool(self._named(item_of(block, self._run_id, "completed"))["type"] == "function_call")

    def _closed(self, block: Block, part: Json) -> Iterator[bytes]:
        match block.kind:
            case "text":
                fields = {"text": block.text, "logprobs": list(block.logprobs)}
                yield self._event("response.output_text.done", **part, **fields)
                yield self._event("response.content_part.done", **part, part=_text_part(block))
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

    def _fusion(self, name: str, **fields: Any) -> bytes:
        return self._event(f"response.fusion_call.{name}", item_id=id_of("fc", self._run_id), output_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return frame(data, kind)


_EMPTY: Mapping[str, Json] = {"text": {"content": []}, "reasoning": {"content": []}, "call": {"arguments": ""}}


def _fusion_events(event: events.Event) -> list[tuple[str, Json]]:
    """The `response.fusion_call.*` events of one event of the run: name and fields."""
    fields = {name: value for name, value in trace.event(event).items() if name != "type"}
    match event:
        case events.RunStarted():
            return [("in_progress", fields), *(("panel.added", {"model": name}) for name in event.panel)]
        case events.AnswerDelta():
            reasoning = [("panel.reasoning.delta", {"model": event.name, "delta": event.reasoning})]
            text = [("panel.delta", {"model": event.name, "delta": event.text})]
            return (reasoning if event.reasoning else []) + (text if event.text else [])
        case events.AnswerDone():
            return [("panel.completed", fields)]
        case events.AnswerFailed():
            # Nested, because clients treat any event with a top-level `error` as a failed stream.
            return [("panel.failed", {"model": event.failure.name, "failed_model": fields})]
        case events.AnalysisStarted():
            return [("analysis.in_progress", fields)]
        case events.AnalysisDelta():
            return [("analysis.delta", fields)]
        case events.AnalysisDone():
            return [("analysis.completed", fields)]
        case events.Gated():
            return [("gate.decided", fields)]
        case events.RoundStarted():
            return [("round.in_progress", fields)]
        case events.Reviewed():
            return [("review.completed", fields)]
        case events.FinalDelta():
            return []


def fusion_item(run: Run, options: Fusion) -> Json:
    fusion = trace.fusion(run, options)
    return {"type": "fusion_call", "id": id_of("fc", run.run_id), "status": "completed", "fusion": fusion}


def item_of(block: Block, run_id: str, status: str) -> Json:
    head = {"id": _item_id(block, run_id), "status": status}
    match block.kind:
        case "text":
            return {"type": "message", **head, "role": "assistant", "content": [_text_part(block)]}
        case "reasoning":
            content = [{"type": "reasoning_text", "text": block.text}]
            return {"type": "reasoning", **head, "summary": [], "content": content}
        case "call":
            assert block.call
            named = {"call_id": block.call.id, "name": block.call.name, "arguments": block.text}
            return {"type": "function_call", **head, **named}


def _text_part(block: Block) -> Json:
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": list(block.logprobs)}


def _item_id(block: Block, run_id: str) -> str:
    prefix = {"text": "msg", "reasoning": "rs", "call": "fcall"}[block.kind]
    return f"{id_of(prefix, run_id)}-{block.index}"


def id_of(prefix: str, run_id: str) -> str:
    return f"{prefix}_{run_id.removeprefix('run-')}"


def status_of(run: Run) -> str:
    return "incomplete" if run.answer.finish_reason == "length" else "completed"
