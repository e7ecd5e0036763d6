"""`/v1/chat/completions` for ensembles: the request, and the reply as one object or as chunks."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any

import orjson
from pydantic import Field, model_validator

from cappella.ensemble.events import Event, RunStarted
from cappella.ensemble.run import Answer, Run
from cappella.gateway.formats import chat_calls, chat_messages, fields
from cappella.gateway.formats.blocks import shown_chunk
from cappella.gateway.formats.chat_calls import CallPieces
from cappella.gateway.formats.fields import AnyTool, Wire
from cappella.gateway.formats.fusion_request import FusionRequest
from cappella.gateway.formats.message_fields import ChatMessage
from cappella.gateway.formats.sse import DONE, EventEncoder, frame
from cappella.gateway.reply_types import AssistantMessage, ChatChoice, ChatCompletion, ErrorBody
from cappella.telemetry import run_events, trace
from cappella.types import Chunk, Json, Positive, Prompt, Sampling


class StreamOptions(Wire):
    include_usage: bool = False


class ChatRequest(FusionRequest, Sampling):
    """A request for a chat completion from an ensemble. Sampling fields at this level are for the final answer."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[AnyTool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: fields.ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: fields.ResponseFormat | None = None
    structured_outputs: fields.StructuredOutputs | None = None
    reasoning_effort: fields.Effort | None = None
    reasoning: fields.Reasoning | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError("max_tokens and max_completion_tokens mean the same: send one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.response_format and self.structured_outputs:
            raise ValueError("response_format and structured_outputs mean the same: send one of them")
        if self.tools is None and self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice needs tools")
        efforts = {self.reasoning_effort, self.reasoning and self.reasoning.effort} - {None}
        if len(efforts) > 1:
            raise ValueError("reasoning_effort and reasoning mean the same: send one of them")
        self.require_one_effort(bool(efforts))
        return self

    @property
    def prompt(self) -> Prompt:
        effort = self.reasoning or self.options.reasoning
        return Prompt(
            messages=chat_messages.messages_of(self.messages),
            tools=[chat_messages.tool_of(tool) for tool in self.own_tools],
            tool_choice=chat_messages.tool_choice_of(self.own_tool_choice),
            parallel_tool_calls=self.parallel_tool_calls if self.own_tools else None,
            output_format=fields.output_format_of(self.response_format, self.structured_outputs),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            reasoning_effort=self.reasoning_effort or (effort.effort if effort else None),
            template_words=self.chat_template_kwargs or {},
        )

    @property
    def effort_field(self) -> str:
        given = [name for name in ("reasoning_effort", "reasoning") if getattr(self, name)]
        return given[0] if given else super().effort_field

    @property
    def sampling(self) -> Sampling:
        """The sampling of the final answer."""
        return Sampling(**{"max_completion_tokens": self.max_tokens, **self.given()})

    @property
    def text_tools(self) -> frozenset[str]:
        """The names of the client's tools that take a text."""
        return frozenset(tool.custom.name for tool in self.own_tools if isinstance(tool, fields.TextTool))

    def to_response(self, run: Run) -> ChatCompletion:
        """The run as one `chat.completion`."""
        answer = run.told_answer
        choice: ChatChoice = {
            "index": 0,
            "message": _message(answer, self.text_tools),
            "logprobs": {"content": list(answer.logprobs)} if self.logprobs and answer.logprobs else None,
            "finish_reason": answer.finish_reason,
        }
        return {
            "id": run.run_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": None,
            "choices": [choice],
            "usage": trace.run_usage(run),
            "fusion": trace.fusion(run, self.options),
        }

    def event_encoder(self) -> EventEncoder:
        return Chunks(self)


_AFTER_DELTA = b',"logprobs":null,"finish_reason":null}]}\n\n'


class Chunks(EventEncoder):
    """Encodes a run as `chat.completion.chunk` objects."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head: Json = {
            "id": "",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.model,
        }
        self._before_delta = b""
        self._calls = CallPieces(request.text_tools)

    def frames(self, event: Event) -> Iterator[bytes]:
        if chunk := shown_chunk(event):
            yield self._final(chunk)
            return
        if isinstance(event, RunStarted):
            self._head["id"] = event.run_id
            self._before_delta = frame(self._head).removesuffix(b"}\n\n") + b',"choices":[{"index":0,"delta":'
            yield self._chunk({"role": "assistant", "content": ""})
        if self._request.options.include_events:
            # Clients ignore the event beside the empty delta, which they can all read.
            yield self._chunk({}, fusion_event=run_events.told(event))

    def end(self, run: Run) -> Iterator[bytes]:
        """The last chunks: the finish reason, the trace and the usage.

        With `include_usage` OpenAI puts the usage on a chunk without choices, which other clients may not expect.
        """
        if calls := list(self._calls.rest()):
            yield self._chunk({"tool_calls": calls})
        extensions: Json = {"fusion": trace.fusion(run, self._request.options), "usage": trace.run_usage(run)}
        if self._request.stream_options and self._request.stream_options.include_usage:
            yield self._chunk({}, run.answer.finish_reason)
            yield frame({**self._head, "choices": [], **extensions})
        else:
            yield self._chunk({}, run.answer.finish_reason, **extensions)
        yield DONE

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        yield frame({"error": error})
        yield DONE

    def _final(self, chunk: Chunk) -> bytes:
        """A piece of the answer. The constant parts of its JSON are encoded once a run, not for each token."""
        delta = _delta(chunk, list(self._calls.of(chunk.tool_calls)))
        if logprobs := self._logprobs(chunk):
            return self._chunk(delta, logprobs=logprobs)
        return self._before_delta + orjson.dumps(delta) + _AFTER_DELTA

    def _logprobs(self, chunk: Chunk) -> Json | None:
        return {"content": list(chunk.logprobs)} if self._request.logprobs and chunk.logprobs else None

    def _chunk(
        self,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        logprobs: Json | None = None,
        **extensions: Any,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return frame({**self._head, "choices": [choice], **extensions})


def _message(answer: Answer, texts: Collection[str]) -> AssistantMessage:
    content = answer.content or (None if answer.tool_calls else "")
    message: AssistantMessage = {"role": "assistant", "content": content}
    if answer.reasoning:
        message["reasoning"] = message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [chat_calls.whole(call, texts) for call in answer.tool_calls]
    return message


def _delta(chunk: Chunk, calls: Sequence[Json] = ()) -> Json:
    delta: Json = {}
    if chunk.content:
        delta["content"] = chunk.content
    if chunk.reasoning:
        delta.update(reasoning=chunk.reasoning, reasoning_content=chunk.reasoning)
    if calls:
        delta["tool_calls"] = list(calls)
    return delta
