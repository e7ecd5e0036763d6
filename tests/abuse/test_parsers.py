"""Parsers of arbitrary bytes, cut anywhere: engine streams, the token meter, event frames, request limits."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.config.limits import Limits
from cappella.engines import openai
from cappella.errors import EngineBroke, RequestError
from cappella.gateway import limits
from cappella.gateway.formats import sse
from cappella.telemetry.forwarded_reply import ForwardedReply
from cappella.types import Chunk, Usage

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FRAGMENTS = st.sampled_from(
    [
        *(
            b"data: ",
            b"data:",
            b"\n",
            b"\n\n",
            b"\r\n",
            b"[DONE]",
            b"{",
            b"}",
            b"null",
            b": keep-alive\n\n",
            b"event: x\n",
        ),
        *(
            b'{"choices": [',
            b"]}",
            b'{"usage": null}',
            b'{"error": {"message": "x"}}',
            b'{"error": 7}',
            b"\xff\xfe",
            b"\x00",
        ),
        *(
            event
            for text in ("a", "é", "\u2028", "")
            for event in (
                b'data: {"choices": [{"index": 0, "delta": {"content": ' + json.dumps(text).encode() + b"}}]}\n\n",
                b'data: {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]}\n\n',
                b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n',
            )
        ),
    ]
)
STREAMS = st.lists(FRAGMENTS | st.binary(max_size=6), max_size=20).map(b"".join)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The bytes in pieces that end at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


async def parsed(pieces: Sequence[bytes]) -> tuple[dict[int, str], list[Chunk], bool]:
    """The text of each sample, the other chunks, and whether the stream broke."""

    async def parts() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    texts: dict[int, str] = {}
    others = []
    try:
        async for chunk in openai.chunks(parts()):
            texts[chunk.sample] = texts.get(chunk.sample, "") + chunk.content
            others += [] if chunk.is_plain or chunk == Chunk(sample=chunk.sample) else [chunk]
    except EngineBroke:
        return texts, others, True
    return texts, others, False


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=8))
async def test_cutting_a_stream_elsewhere_changes_nothing(data: bytes, places: list[int]) -> None:
    texts, others, broke = await parsed([data])
    again = await parsed(cut(data, places))
    assert ({k: v for k, v in texts.items() if v}, others, broke) == (
        {k: v for k, v in again[0].items() if v},
        again[1],
        again[2],
    )


@given(st.binary(max_size=200) | STREAMS)
async def test_a_stream_of_any_bytes_ends_in_chunks_or_is_broken(data: bytes) -> None:
    _, _, broke = await parsed([data[i : i + 1] for i in range(len(data))])
    assert broke or b"[DONE]" in data


async def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "MAX_EVENT_BYTES", 1000)
    _, _, broke = await parsed([b"data: " + b"x" * 100] * 20 + [b"data: [DONE]\n\n"])
    assert broke


@given(STREAMS | JSON.map(lambda value: json.dumps({"usage": value, "response": value}).encode()), st.data())
def test_a_meter_counts_the_same_however_its_bytes_are_cut(data: bytes, draw: st.DataObject) -> None:
    whole, pieces = (ForwardedReply({}, answers=2, tokens=50) for _ in range(2))
    whole.add(data)
    for piece in cut(data, draw.draw(st.lists(st.integers(0, 10_000), max_size=8))):
        pieces.add(piece)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cappella.telemetry.forwarded_reply.MAX_TOKENS_PER_S", 0)
        assert whole.usage == pieces.usage
    assert all(isinstance(count, int) and count >= 0 for count in astuple(whole.usage))


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.booleans())
def test_a_meter_reads_the_last_usage(prompt: int, answer: int, streamed: bool) -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}).encode()
    reply = ForwardedReply({}, answers=1, tokens=9)
    reply.add(b'data: {"choices": []}\n\ndata: ' + usage + b"\n\ndata: [DONE]\n\n" if streamed else usage)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (prompt, answer)


def test_a_meter_keeps_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cappella.telemetry.forwarded_reply.MAX_TAIL_BYTES", 1000)
    reply = ForwardedReply({}, answers=1, tokens=9)
    for _ in range(1000):
        reply.add(b'data: {"choices": []}\n\n')
    reply.add(b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}\n\n')
    assert len(reply.tail) <= 2000
    assert reply.usage == Usage(1, 0, 2)


@given(st.dictionaries(st.text(max_size=20), JSON, max_size=4), st.none() | st.sampled_from(["error", "message_stop"]))
def test_our_own_frames_parse_back(data: dict[str, Any], event: str | None) -> None:
    framed = sse.frame(data, event)
    assert framed.endswith(b"\n\n")
    lines = framed[:-2].split(b"\n")
    assert len(lines) == (2 if event else 1)
    fields = dict(line.split(b": ", 1) for line in lines)
    assert orjson.loads(fields[b"data"]) == orjson.loads(orjson.dumps(data))
    assert fields.get(b"event") == (event.encode() if event else None)


@given(st.dictionaries(st.sampled_from(["n", "prompt", "stop", "messages", "tools", "text", "response_format"]), JSON))
def test_whatever_a_body_holds_its_limits_are_kept_or_named(body: dict[str, Any]) -> None:
    try:
        limits.require_within_limits(body)
    except RequestError:
        return
    assert limits.answer_count(body) <= Limits().samples


@pytest.mark.parametrize("count", [0, -1, 2.0, "3", True, 10**30, [1]])
def test_an_ambiguous_number_of_answers_is_refused(count: Any) -> None:
    with pytest.raises(RequestError) as refused:
        limits.require_within_limits({"model": "m", "n": count})
    assert refused.value.param == "n"


@pytest.mark.parametrize("prompt", [["a"] * 17, [[1, 2]] * 17, ["a", 3] * 9])
def test_many_prompts_are_many_answers(prompt: list[Any]) -> None:
    with pytest.raises(RequestError, match="at most 16 answers"):
        limits.require_within_limits({"model": "m", "prompt": prompt})
    limits.require_within_limits({"model": "m", "prompt": [1] * 500})
    with pytest.raises(RequestError, match="at most 16 answers"):
        limits.require_within_limits({"model": "m", "prompt": ["a"] * 5, "n": 4})
