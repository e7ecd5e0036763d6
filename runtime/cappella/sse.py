"""Server-sent events as they are read. Of each event its data, in one line, as every API that we speak sends it."""

DONE = b"[DONE]"
"""The data of OpenAI's end mark."""


class EventTooLarge(ValueError):
    """One event is larger than it may be."""


class Reader:
    """Reads a stream in the pieces in which it comes. With `max_bytes`, raises EventTooLarge for a longer line."""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes."""
        whole, newline, rest = piece.rpartition(b"\n")
        if newline and self._rest:
            whole = bytes(self._rest) + whole
            self._rest.clear()
        self._rest += rest
        if self._max_bytes is not None and len(self._rest) > self._max_bytes:
            self._rest.clear()
            raise EventTooLarge(f"an event of more than {self._max_bytes} bytes")
        return events(whole) if newline else []


def events(text: bytes) -> list[bytes]:
    """The data of the events of a whole text."""
    return [line[5:].strip() for line in text.split(b"\n") if line.startswith(b"data:")]
