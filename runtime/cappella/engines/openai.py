"""OpenAI's chat API on the wire: the body of a request, the chunks of a stream, the reasons of a refusal."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import orjson

from cappella import sse
from cappella.errors import EngineBroke, EngineContextExceeded, EngineError, EngineRejected
from cappella.types import Chunk, Json, Prompt, Sampling, ToolCall, Usage

# vLLM names the parameter that does not fit, others have a code or a type of error; messages change all the time.
_CONTEXT_PARAMS = ("input_tokens", "max_tokens", "max_completion_tokens", "input_text")
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")

MAX_EVENT_BYTES = 4 << 20


def body(model: str, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """A streamed chat request, with nothing in it but what the prompt asks for."""
    out: dict[str, Any] = {
        "model": model,
        "messages": list(prompt.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling.given(),
    }
    if prompt.tools:
        out["tools"] = list(prompt.tools)
        # Servers take these two only beside tools.
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
    """Decode server-sent events; a stream that ends without [DONE] or holds no JSON is broken.

    Pieces of text that arrived together are one chunk: what follows costs more than decoding them did.
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
            raise EngineBroke(f"the stream holds what is no chunk: {data[:80]!r}") from error


def _joined(chunks: Iterable[Chunk | None]) -> Iterator[Chunk | None]:
    """The same, with plain text that follows plain text of the same answer put together, also if an error follows."""
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
    except EngineBroke:
        if texts:
            yield Chunk("".join(texts), sample=sample)
        raise
    if texts:
        yield Chunk("".join(texts), sample=sample)


def is_servers_fault(status_code: int) -> bool:
    """Whether a status tells of the server, or of our key to it, and not of what a client asked."""
    return not (200 <= status_code < 300 or 400 <= status_code < 500) or status_code in (401, 403)


def rejection(status_code: int, reply: bytes) -> EngineError:
    """The error that a refusal stands for. What an engine says of its own fault is for its log, and for nobody else."""
    if status_code >= 500:
        return EngineBroke(f"the engine answered {status_code}: its log has more")
    if status_code in (401, 403):
        return EngineBroke(f"the server refused our key ({status_code})")
    try:
        error = orjson.loads(reply)["error"]
        message, param = str(error["message"]), error.get("param")
        codes = (error.get("code"), error.get("type"))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return EngineBroke(f"the engine answered {status_code} with no readable reason")
    if status_code == 400 and (param in _CONTEXT_PARAMS or any(code in _CONTEXT_CODES for code in codes)):
        return EngineContextExceeded(message, status_code)
    return EngineRejected(message, status_code)


def models(reply: bytes) -> list[Json]:
    """What /v1/models lists; empty if that is no list of models."""
    try:
        listed = orjson.loads(reply)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _chunk(event: Mapping[str, Any]) -> Chunk:
    if "error" in event:
        raise EngineBroke(str(event["error"].get("message", "error without a message")))
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
        # A number is a token that ends every answer, not a text that the caller gave.
        stop if isinstance(stop, str) else None,
    )


def _tool_call(wire: Mapping[str, Any]) -> ToolCall:
    function = wire.get("function") or {}
    return ToolCall(
        int(wire["index"]), wire.get("id") or "", function.get("name") or "", function.get("arguments") or ""
    )


def _tokens_per_step(event: Mapping[str, Any]) -> float | None:
    """What vLLM says of its speculative decoding, if it does any: a step's own token and the accepted drafts."""
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
