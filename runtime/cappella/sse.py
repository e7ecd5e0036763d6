"""Parses server-sent events into their data. All supported APIs send one `data:` line per event."""

DONE = b"[DONE]"
"""The data of the last event of an OpenAI stream."""


class EventTooLarge(ValueError):
    """An event is larger than the reader allows."""


class Reader:
    """Parses a stream piece by piece. With `max_bytes`, raises EventTooLarge for a longer line."""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes, in order."""
        complete, newline, rest = piece.rpartition(b"\n")
        if newline and self._rest:
            complete = bytes(self._rest) + complete
            self._rest.clear()
        self._rest += rest
        if self._max_bytes is not None and len(self._rest) > self._max_bytes:
            self._rest.clear()
            raise EventTooLarge(f"an event of more than {self._max_bytes} bytes")
        return events(complete) if newline else []


def events(text: bytes) -> list[bytes]:
    """The data of all events in a complete text."""
    return [line[5:].strip() for line in text.split(b"\n") if line.startswith(b"data:")]
