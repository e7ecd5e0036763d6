"""HTTP for a stub engine, of the standard library alone: each test's fork server imports it, and aiohttp takes 0.5 s."""

import asyncio
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

Answer = Callable[[str], Awaitable[tuple[int, str]]]
"""The status and the text for a path with its query."""


def run(socket: str, answer: Answer) -> None:
    """Answer requests on a Unix socket until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(_serve(socket, answer))


async def _serve(socket: str, answer: Answer) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await _exchange(reader, writer, answer)
        writer.close()

    server = await asyncio.start_unix_server(connected, socket)
    await server.serve_forever()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"(?i)\ncontent-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    status, text = await answer(head.split(" ")[1])
    kind = "text/event-stream" if text.startswith("data: ") else "text/plain"
    writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    await writer.drain()
