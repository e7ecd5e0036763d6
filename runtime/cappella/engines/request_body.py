"""The body of a request to a server, sent piece by piece."""

import asyncio

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

PIECE_BYTES = 64 << 10


class JsonBody(Payload):
    """aiohttp's own payload of bytes sends them at once, which holds the event loop; that of a BytesIO copies them first."""

    _autoclose = True

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as a text."""
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; others have a turn between two pieces of it."""
        body = memoryview(self._value)
        for at in range(0, len(body), PIECE_BYTES):
            if at:
                await asyncio.sleep(0)
            await writer.write(body[at : at + PIECE_BYTES])
