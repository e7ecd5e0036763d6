"""OpenAI's chat API on the wire: the body of a request, the chunks of a stream."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import orjson

from cappella import sse
from cappella.engines import refusals
from cappella.errors import EngineBroke, EngineError
from cappella.types import Chunk, Json, Prompt, Sampling, ToolCall, Usage

MAX_EVENT_BYTES = 4 << 20


def body(model: str, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """A streamed chat request, with only the fields that the prompt sets."""
    out: dict[str, Any] = {
        "model": model,
        "messages": list(prompt.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling.given(),
    }
    if prompt.tools:
        out["tools"] = list(prompt.tools)
        # Servers accept these two only together with tools.
        given = {"tool_choice": prompt.tool_choice, "parallel_tool_calls": prompt.parallel_tool_calls}
        out.update({name: value for name, value in given.items() if value is not None})
    if prompt.output_format is not None:
        out[prompt.output_format.field] = prompt.output_format.value
    if prompt.logprobs is not None:
        out.update(logprobs=True, top_logprobs=prompt.logprobs)
    if prompt.reasoning_effort is not None:
        out["reasoning_effort"] = prompt.reasoning_effort
    if prompt.samples > 1:
        out["n"] = prompt.samples
    return out


async def chunks(parts: AsyncIterable[bytes]) -> AsyncIterator[Chunk]:
    """Decode server-sent events. Raises EngineRejected for a refusal of the request that comes as an event.

    Raises EngineBroke for a stream without [DONE] at its end, or with anything but chunks.

    Pieces of text that arrived together become one chunk, since each chunk costs more downstream than its decoding.
    """
    reader = sse.Reader(MAX_EVENT_BYTES)
    async for part in parts:
        try:
            events = reader.feed(part)
        except sse.EventTooLarge as error:
            raise EngineBroke(f"the stream holds {error}") from error
        for chunk in _joined(_decoded(events)):
            if chunk is None:
                return
            yield chunk
    raise EngineBroke("the stream ended before its end mark")


def _decoded(events: Iterable[bytes]) -> Iterator[Chunk | None]:
    """None stands for the end mark."""
    for data in events:
        if data == sse.DONE:
            yield None
            return
        try:
            yield _chunk(orjson.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineBroke(f"the stream holds an invalid chunk: {data[:80]!r}") from error


def _joined(chunks: Iterable[Chunk | None]) -> Iterator[Chunk | None]:
    """The same chunks, with consecutive plain text of one answer joined; also the text before an error."""
    texts: list[str] = []
    sample = 0
    try:
        for chunk in chunks:
            if chunk is not None and chunk.is_plain and (chunk.sample == sample or not texts):
                texts.append(chunk.content)
                sample = chunk.sample
                continue
            if texts:
                yield Chunk("".join(texts), sample=sample)
                texts = []
            yield chunk
    except EngineError:
        if texts:
            yield Chunk("".join(texts), sample=sample)
        raise
    if texts:
        yield Chunk("".join(texts), sample=sample)


def models(reply: bytes) -> list[Json]:
    """The entries of a /v1/models reply; empty if it is no list of models."""
    try:
        listed = orjson.loads(reply)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _chunk(event: Mapping[str, Any]) -> Chunk:
    if "error" in event:
        raise refusals.in_stream(event["error"])
    usage = _usage(event["usage"]) if event.get("usage") else None
    if not event.get("choices"):
        return Chunk(usage=usage, tokens_per_step=_tokens_per_step(event))
    choice = event["choices"][0]
    delta = choice["delta"]
    content, reasoning = delta.get("content") or "", delta.get("reasoning") or delta.get("reasoning_content") or ""
    finish_reason = choice.get("finish_reason")
    stop = choice.get("stop_reason")
    if not all(isinstance(text, str) for text in (content, reasoning, finish_reason or "")):
        raise TypeError("a text that is none")
    return Chunk(
        content,
        reasoning,
        [_tool_call(call) for call in delta.get("tool_calls") or ()],
        (choice.get("logprobs") or {}).get("content") or (),
        finish_reason,
        usage,
        int(choice.get("index") or 0),
        # A number is the id of an end token, not one of the caller's stop sequences.
        stop if isinstance(stop, str) else None,
    )


def _tool_call(wire: Mapping[str, Any]) -> ToolCall:
    function = wire.get("function") or {}
    return ToolCall(
        int(wire["index"]), wire.get("id") or "", function.get("name") or "", function.get("arguments") or ""
    )


def _tokens_per_step(event: Mapping[str, Any]) -> float | None:
    """vLLM's mean acceptance length of speculative decoding: a step's own token and the accepted draft tokens."""
    speculation = (event.get("metrics") or {}).get("speculative_decoding")
    return float(speculation["mean_acceptance_length"]) if speculation else None


def _usage(wire: Mapping[str, Any]) -> Usage:
    prompt_details = wire.get("prompt_tokens_details") or {}
    completion_details = wire.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=int(wire.get("prompt_tokens") or 0),
        cached_tokens=int(prompt_details.get("cached_tokens") or 0),
        completion_tokens=int(wire.get("completion_tokens") or 0),
        reasoning_tokens=int(completion_details.get("reasoning_tokens") or 0),
    )
