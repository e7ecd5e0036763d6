"""Replies of Ollama's `/api/chat` and `/api/generate`: one JSON object, or a line of JSON for each piece of a stream."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson

from cappella.engines import openai
from cappella.ensemble.events import Event, RunStarted
from cappella.ensemble.run import Run
from cappella.ensemble.structured.json_value import parse_json
from cappella.gateway.formats.api_errors import ollama_error
from cappella.gateway.formats.blocks import shown_chunk
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.ollama import CHAT
from cappella.gateway.formats.sse import EventEncoder
from cappella.gateway.reply_types import ErrorBody
from cappella.telemetry import trace
from cappella.types import Chunk, Json, ToolCall, Usage

NDJSON = "application/x-ndjson"


def written(moment: float | None = None) -> str:
    """A time as Ollama writes it; now by default."""
    return datetime.fromtimestamp(time.time() if moment is None else moment, UTC).isoformat().replace("+00:00", "Z")


class Replies:
    """Makes the objects of one reply, and measures the durations that the last one has."""

    def __init__(self, path: str, model: str) -> None:
        self._is_chat = path == CHAT
        self._model = model
        self._began_at = time.monotonic()
        self._first_at: float | None = None

    def piece(self, content: str = "", thinking: str = "", calls: Sequence[ToolCall] = ()) -> Json:
        """An object with a piece of the answer."""
        head = {"model": self._model, "created_at": written()}
        if not self._is_chat:
            return {**head, "response": content, **({"thinking": thinking} if thinking else {}), "done": False}
        message: Json = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        return {**head, "message": message, "done": False}

    def line(self, content: str = "", thinking: str = "", calls: Sequence[ToolCall] = ()) -> bytes:
        """The same as a line of a stream; the first one ends the time of the prompt."""
        self._first_at = self._first_at or time.monotonic()
        return line(self.piece(content, thinking, calls))

    def end(self, piece: Json, reason: str | None, usage: Usage) -> Json:
        """`piece` as the last object: why the answer ended, and what it cost, in tokens and nanoseconds."""
        now, first_at = time.monotonic(), self._first_at or self._began_at
        return {
            **piece,
            "done": True,
            "done_reason": "length" if reason == "length" else "stop",
            "total_duration": _ns(now - self._began_at),
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": _ns(first_at - self._began_at),
            "eval_count": usage.completion_tokens,
            # Clients divide by it.
            "eval_duration": max(1, _ns(now - first_at)),
        }

    def loaded(self, unload: bool) -> Json:
        """The reply to a request without a prompt."""
        return {**self.piece(), "done": True, "done_reason": "unload" if unload else "load"}


class OllamaRequest:
    """A chat request to an ensemble whose reply has Ollama's form."""

    def __init__(self, path: str, name: str, chat: ChatRequest) -> None:
        self._chat = chat
        self._replies = Replies(path, name)
        self.stream = chat.stream
        self.wants_panel_deltas = chat.wants_panel_deltas
        self.prompt, self.sampling, self.overrides = chat.prompt, chat.sampling, chat.overrides

    @property
    def ignored(self) -> Sequence[str]:
        return self._chat.ignored

    @property
    def effort_field(self) -> str:
        return "think"

    def tell_ignored(self, names: Sequence[str]) -> None:
        self._chat.tell_ignored(names)

    def to_response(self, run: Run) -> Json:
        answer = run.told_answer
        piece = self._replies.piece(answer.content, answer.reasoning, answer.tool_calls)
        return self.end(run, piece)

    def end(self, run: Run, piece: Json) -> Json:
        spent = trace.run_usage(run)
        usage = Usage(spent["prompt_tokens"], 0, spent["completion_tokens"])
        fusion = trace.fusion(run, self._chat.options)
        return {**self._replies.end(piece, run.answer.finish_reason, usage), "fusion": fusion}

    def event_encoder(self) -> EventEncoder:
        return Lines(self, self._replies)


class Lines(EventEncoder):
    """Encodes a run as lines. A tool call is one piece: Ollama's arguments are objects."""

    media_type: ClassVar[str] = NDJSON

    def __init__(self, request: OllamaRequest, replies: Replies) -> None:
        self._request = request
        self._replies = replies

    @property
    def keep_alive(self) -> bytes:
        """An empty piece: clients parse each line, so that there are no comments."""
        return line(self._replies.piece())

    def frames(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, RunStarted):
            # Some clients give up on a server that says nothing for a while.
            yield self.keep_alive
        chunk = shown_chunk(event)
        if chunk and (chunk.content or chunk.reasoning):
            yield self._replies.line(chunk.content, chunk.reasoning)

    def end(self, run: Run) -> Iterator[bytes]:
        if run.answer.tool_calls:
            yield self._replies.line(calls=run.answer.tool_calls)
        yield line(self._request.end(run, self._replies.piece()))

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        yield line(ollama_error(error))


async def of_stream(data: AsyncGenerator[bytes, None], replies: Replies) -> AsyncGenerator[bytes, None]:
    """The lines of a model's reply, from its stream of chat chunks. Raises EngineError."""
    calls: dict[int, ToolCall] = {}
    reason, usage = None, Usage()
    async with aclosing(data):
        async for chunk in openai.chunks(data):
            if chunk.content or chunk.reasoning:
                yield replies.line(chunk.content, chunk.reasoning)
            _join(calls, chunk)
            reason, usage = chunk.finish_reason or reason, chunk.usage or usage
    if calls:
        yield replies.line(calls=list(calls.values()))
    yield line(replies.end(replies.piece(), reason, usage))


async def of_whole(data: AsyncIterator[bytes], replies: Replies) -> AsyncGenerator[bytes, None]:
    """The reply of a model, from its whole chat completion."""
    reply = orjson.loads(b"".join([piece async for piece in data]))
    choice, spent = reply["choices"][0], reply.get("usage") or {}
    message = choice["message"]
    calls = [_tool_call(index, call) for index, call in enumerate(message.get("tool_calls") or ())]
    thinking = message.get("reasoning") or message.get("reasoning_content") or ""
    piece = replies.piece(message.get("content") or "", thinking, calls)
    usage = Usage(spent.get("prompt_tokens", 0), 0, spent.get("completion_tokens", 0))
    yield orjson.dumps(replies.end(piece, choice.get("finish_reason"), usage))


def line(reply: Mapping[str, Any]) -> bytes:
    return orjson.dumps(reply) + b"\n"


def _join(calls: dict[int, ToolCall], chunk: Chunk) -> None:
    for piece in chunk.tool_calls:
        calls[piece.index] = calls[piece.index].joined(piece) if piece.index in calls else piece


def _tool_call(index: int, call: Json) -> ToolCall:
    return ToolCall(index, call.get("id") or "", call["function"]["name"], call["function"]["arguments"])


def _call(call: ToolCall) -> Json:
    """A call with its arguments as an object; what is no object is text in one."""
    try:
        arguments = parse_json(call.arguments) if call.arguments else {}
        orjson.dumps(arguments)
    except (ValueError, TypeError):
        arguments = None
    known = arguments if isinstance(arguments, dict) else {"unparsed": call.arguments}
    return {"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": known}}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
