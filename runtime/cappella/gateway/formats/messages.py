"""`/v1/messages`, Anthropic's API, for ensembles: the request, and the run as content blocks."""

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from pydantic import Field, model_validator

from cappella.ensemble.events import Event, RunStarted
from cappella.ensemble.run import Run
from cappella.ensemble.structured.json_value import parse_json
from cappella.gateway import reply_types
from cappella.gateway.formats import turns
from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.formats.blocks import Block, Blocks, Step, blocks_of, shown_chunk
from cappella.gateway.formats.chat_messages import with_images_of_users
from cappella.gateway.formats.fusion_request import FusionRequest
from cappella.gateway.formats.sse import EventEncoder, frame
from cappella.gateway.formats.thinking import JsonFormat, OutputConfig, Thinking, effort_of, output_format_of
from cappella.gateway.reply_types import ErrorBody
from cappella.telemetry import run_events, trace
from cappella.types import Positive, Prompt, Sampling, Stop, TopP


class MessagesRequest(FusionRequest):
    """A request for a message from an ensemble."""

    messages: Annotated[list[turns.Turn], Field(min_length=1)]
    max_tokens: Positive
    system: str | list[turns.TextBlock] | None = None
    stop_sequences: list[Stop] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    tools: Annotated[list[turns.ToolDefinition], Field(max_length=128)] | None = None
    tool_choice: turns.ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "MessagesRequest":
        choice = self.tool_choice
        if choice and not self.tools and choice.type not in ("auto", "none"):
            raise ValueError("tool_choice needs tools")
        if choice and (choice.type == "tool") != (choice.name is not None):
            raise ValueError("tool_choice needs a name if its type is tool, and must not have one otherwise")
        return self

    @property
    def prompt(self) -> Prompt:
        effort, choice = self.options.reasoning, self.tool_choice if self.tools else None
        said = with_images_of_users([message for turn in self.messages for message in turns.messages_of(turn)])
        form = self.output_format or (self.output_config.format if self.output_config else None)
        return Prompt(
            messages=[*turns.system_of(self.system), *said],
            tools=[turns.tool_of(tool) for tool in self.tools or ()],
            tool_choice=turns.tool_choice_of(choice) if choice else None,
            parallel_tool_calls=False if choice and choice.disable_parallel_tool_use else None,
            output_format=output_format_of(form),
            reasoning_effort=effort.effort if effort else effort_of(self.thinking, self.output_config),
            template_words=self.chat_template_kwargs or {},
            brings_results=turns.bring_results(self.messages),
        )

    @property
    def effort_field(self) -> str:
        if self.options.reasoning:
            return super().effort_field
        return "thinking" if self.thinking else "output_config.effort"

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop_sequences or ()) or None,
            max_completion_tokens=self.max_tokens,
        )

    def to_response(self, run: Run) -> reply_types.Message:
        return {
            **self.head(run.run_id),
            **_stop(run),
            "content": [_block(block) for block in blocks_of(run.told_answer)],
            "usage": _usage(run),
            "fusion": trace.fusion(run, self.options),
        }

    def head(self, run_id: str) -> reply_types.Message:
        """The message before its first block."""
        return {
            "id": f"msg_{run_id.removeprefix('run-')}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def event_encoder(self) -> EventEncoder:
        return Events(self)


class Events(EventEncoder):
    """Encodes a run as Anthropic's events; requested progress is a `fusion_event`, which stock clients ignore."""

    def __init__(self, request: MessagesRequest) -> None:
        self._request = request
        self._blocks = Blocks()

    def frames(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, RunStarted):
            yield _event("message_start", message=self._request.head(event.run_id))
        if chunk := shown_chunk(event):
            for step in self._blocks.add(chunk):
                yield _step(step)
        elif self._request.options.include_events:
            yield _event("fusion_event", fusion_event=run_events.told(event))

    def end(self, run: Run) -> Iterator[bytes]:
        for step in self._blocks.close():
            yield _step(step)
        fusion = trace.fusion(run, self._request.options)
        yield _event("message_delta", delta=_stop(run), usage=_usage(run), fusion=fusion)
        yield _event("message_stop")

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        yield frame(error_body(500, error), "error")


def _step(step: Step) -> bytes:
    block = step.block
    match step.change:
        case "opened":
            return _event("content_block_start", index=block.index, content_block=_block(block))
        case "delta":
            kind, name = _DELTAS[block.kind]
            return _event("content_block_delta", index=block.index, delta={"type": kind, name: block.text})
        case "closed":
            return _event("content_block_stop", index=block.index)


_DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def _block(block: Block) -> reply_types.ContentBlock:
    match block.kind:
        case "text":
            return {"type": "text", "text": block.text}
        case "reasoning" | "progress":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        case "call":
            assert block.call
            return {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": _arguments(block.text)}


def _arguments(text: str) -> Any:
    """A call's arguments as an object; text that is cut off, or has integers beyond 64 bits, becomes `unparsed`."""
    try:
        value = parse_json(text) if text else {}
        orjson.dumps(value)
        return value
    except (ValueError, TypeError):
        return {"unparsed": text}


def _event(kind: str, **fields: Any) -> bytes:
    return frame({"type": kind, **fields}, kind)


def _stop(run: Run) -> reply_types.Stop:
    answer = run.answer
    if answer.stop_sequence is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_sequence}
    if answer.finish_reason == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    # Engines say `stop` for a call of a named tool; agents call a tool only for this reason.
    return {"stop_reason": "tool_use" if answer.tool_calls else "end_turn", "stop_sequence": None}


def _usage(run: Run) -> reply_types.MessageUsage:
    """Anthropic's `input_tokens` exclude those found in the cache."""
    spent = trace.run_usage(run)
    cached = spent["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": spent["prompt_tokens"] - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": spent["completion_tokens"],
        "fusion_details": spent["fusion_details"],
    }
