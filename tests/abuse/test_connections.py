"""Limits on what clients can send before they are authenticated."""

import asyncio
from urllib.parse import urlsplit

import pytest

from cappella.gateway import http_protocol

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def _until_closed(url: str, first: bytes, piece: bytes = b"", max_bytes: int = 16 << 20) -> bool:
    """Send `first`, then `piece` repeatedly; True if the server closed the connection before `max_bytes`."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    ended = asyncio.create_task(reader.read())
    sent = 0
    try:
        async with asyncio.timeout(20):
            writer.write(first)
            while piece and not ended.done() and sent < max_bytes:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return sent < max_bytes and isinstance(await ended, bytes)
    except ConnectionError:
        return True
    finally:
        ended.cancel()
        await asyncio.wait([ended])
        writer.transport.abort()


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (HEAD + b"X: ", b"a" * 4096),
        (HEAD, b"X-Another: a\r\n" * 300),
        (b"GET /", b"a" * 4096),
        (CHUNKED + b"0\r\n", b"X-Trailer: a\r\n" * 300),
        (CHUNKED, b"1;" + b"e" * 4096 + b"\r\n \r\n"),
    ],
    ids=["one header", "headers", "path", "trailers", "chunk extensions"],
)
async def test_an_endless_head_is_refused(gateway: str, first: bytes, piece: bytes) -> None:
    assert await _until_closed(gateway, first, piece)


@pytest.mark.parametrize("first", [b"", b"GET /hea", HEAD, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea"])
async def test_a_client_without_a_complete_head_is_disconnected(
    gateway: str, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.1)
    assert await _until_closed(gateway, first)


@pytest.mark.parametrize(("request_", "status"), [(b"GET /health", 200), (b"POST /v1/messages", 400)])
async def test_a_request_for_another_protocol_is_answered_at_once(gateway: str, request_: bytes, status: int) -> None:
    where = urlsplit(gateway)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" if status == 400 else b"\r\n"
    writer.write(request_ + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + body)
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)
    writer.close()


async def test_a_body_in_many_pieces_is_no_head(gateway: str) -> None:
    where = urlsplit(gateway)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = b'{"model": "ann", "messages": [{"role": "user", "content": "' + b"a" * 150_000 + b'"}]}'
    writer.write(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), 1000):
        piece = body[at : at + 1000]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    gateway: str, caplog: pytest.LogCaptureFixture
) -> None:
    where = urlsplit(gateway)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
    writer.write_eof()
    await reader.read()
    writer.close()
    assert not caplog.records
