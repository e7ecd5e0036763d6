"""Reads token usage from an engine's reply while its bytes are forwarded to the client."""

import json
import time
from collections.abc import Iterator
from math import ceil
from typing import Any

from cappella.types import Json, Usage

MAX_TAIL_BYTES = 8 << 20
MAX_USAGE_CHARS = 4096
MAX_TRIES = 64
MAX_TOKENS_PER_S = 500
"""Of one answer: what an engine may have generated since the last piece of its reply came."""
CHARACTERS_PER_TOKEN = 4
_PROMPT_FIELDS = tuple("messages prompt input system instructions tools query queries documents".split())
_COUNTS = {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"}
_USAGE = b'"usage"'


class ForwardedReply:
    """Collects the pieces of one reply to `request`; `usage` holds its tokens once it has ended.

    Where the engine does not report them, its prompt is estimated from its texts, and what may have been written since
    the last piece counts, up to what was asked: so many `answers` of at most so many `tokens`. A request that was never
    `sent` costs nothing.
    """

    def __init__(self, request: Json, answers: int, tokens: int) -> None:
        self.status_code: int | None = None
        self._request = request
        self._answers = answers
        self._tokens = tokens
        self._last_piece_at: float | None = None
        self._newlines = 0
        self._failed = False
        self._tail = bytearray()

    def sent(self) -> None:
        """The engine gets the request now, and may write from here on."""
        self._last_piece_at = time.monotonic()

    def begin(self, status_code: int) -> None:
        """The head of the reply has come; until then nothing is known of the call."""
        self.status_code = status_code

    def fail(self) -> None:
        """The call failed. One without a reply was not made, as far as anybody knows, and costs nothing."""
        self._failed = self.status_code is None

    @property
    def is_refused(self) -> bool:
        return self.status_code is not None and self.status_code >= 400

    def add(self, data: bytes) -> None:
        self._last_piece_at = time.monotonic()
        self._newlines += data.count(b"\n")
        self._tail += data
        # Seldom, since it moves all that is kept.
        if len(self._tail) > 2 * MAX_TAIL_BYTES:
            del self._tail[:-MAX_TAIL_BYTES]

    @property
    def tail(self) -> bytes:
        """The last `MAX_TAIL_BYTES` of the reply."""
        return bytes(self._tail[-MAX_TAIL_BYTES:])

    @property
    def usage(self) -> Usage:
        if self.is_refused or self._failed:
            return Usage()
        return next(self._reported(), None) or self._unreported()

    def _reported(self) -> Iterator[Usage]:
        """The usages in the reply, the last one first. It is not parsed as a whole, which may take long."""
        at = len(self._tail)
        for _ in range(MAX_TRIES):
            if (at := self._tail.rfind(_USAGE, 0, at)) < 0:
                return
            if usage := _usage(bytes(self._tail[at + len(_USAGE) : at + len(_USAGE) + MAX_USAGE_CHARS])):
                yield usage

    def _unreported(self) -> Usage:
        if self._last_piece_at is None:
            return Usage()
        interval = self._request.get("stream_interval")
        # An event of a stream has two.
        seen = self._newlines // 2 * (interval if isinstance(interval, int) and interval > 1 else 1)
        unseen = ceil((time.monotonic() - self._last_piece_at) * MAX_TOKENS_PER_S) * self._answers
        prompt = sum(_size(self._request.get(name)) for name in _PROMPT_FIELDS)
        completion = min(self._answers * self._tokens, seen + unseen)
        return Usage(-(-prompt // CHARACTERS_PER_TOKEN), 0, completion, estimated=True)


def _usage(text: bytes) -> Usage | None:
    """The usage in the object after a colon; None if there is none, or it has no counts."""
    after = text.decode(errors="replace").lstrip()
    try:
        usage, _ = json.JSONDecoder().raw_decode(after.removeprefix(":").lstrip())
        prompt = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        completion = usage.get("completion_tokens") or usage.get("output_tokens") or 0
        prompt, cached, completion = (max(0, int(count)) for count in (prompt, _cached(usage), completion))
        return Usage(prompt, cached, completion) if usage.keys() & _COUNTS else None
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _cached(usage: dict[str, Any]) -> int:
    """Prompt tokens read from the cache, by each API's field name."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0


def _size(value: object) -> int:
    """The characters of all texts within a prompt's field, images left out; a token's number counts as one token."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value)
    if isinstance(value, dict):
        return sum(_size(each) for each in value.values())
    if isinstance(value, list):
        return sum(_size(each) for each in value)
    return CHARACTERS_PER_TOKEN if isinstance(value, int) else 0
