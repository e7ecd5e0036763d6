"""How many tokens a model's own reply cost, read from the bytes as they pass."""

import orjson

KEPT_BYTES = 8 << 20
_EVENT = b"data: {"


class Meter:
    """Hears a reply; afterwards `tokens` are those of the prompt and of the answer.

    A stream without usage has as many as it has events, and no prompt that could be known.
    """

    def __init__(self) -> None:
        self._events = 0
        self._tail = b""

    def hear(self, data: bytes) -> None:
        self._events += data.count(_EVENT)
        self._tail = (self._tail + data)[-KEPT_BYTES:]

    @property
    def tokens(self) -> tuple[int, int]:
        pieces = self._tail.splitlines() if self._events else [self._tail]
        for piece in reversed(pieces):
            if usage := _usage(piece.removeprefix(b"data: ")):
                return usage
        return 0, self._events


def _usage(piece: bytes) -> tuple[int, int] | None:
    if b'"usage"' not in piece:
        return None
    try:
        value = orjson.loads(piece)
        usage = value.get("usage") or value.get("response", {}).get("usage") or {}
        prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
        return (prompt, usage.get("completion_tokens", usage.get("output_tokens", 0))) if usage else None
    except (orjson.JSONDecodeError, AttributeError):
        return None
