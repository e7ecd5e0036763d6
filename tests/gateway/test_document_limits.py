"""The limits of `/api/documents`: how many are read and wait, for how long one is read, and for whom."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.gateway import documents
from cappella.gateway.documents import DocumentLimits
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.sample_documents import pdf

# A reader that notes its process and waits for a file named `go`.
READER = """#!/bin/sh
echo $$ >> {folder}/begun
until [ -e {folder}/go ]; do /bin/sleep 0.02; done
exec {python} "$@"
"""


@dataclass(frozen=True)
class Reading:
    """A server whose readers wait until they may go on."""

    url: str
    folder: Path

    @property
    def begun(self) -> list[int]:
        """The processes that were started for documents."""
        noted = self.folder / "begun"
        return [int(line) for line in noted.read_text().split()] if noted.exists() else []

    def is_over(self) -> bool:
        """Whether none of these processes is left."""
        return not any(Path(f"/proc/{each}").exists() for each in self.begun)

    def go_on(self) -> None:
        (self.folder / "go").touch()

    async def sent(self, sender: int = 1, arrives: asyncio.Event | None = None) -> tuple[int, Any]:
        """Send a document from an address of its own; `arrives` is set once the server asks for it."""

        async def body() -> AsyncIterator[bytes]:
            if arrives:
                arrives.set()
            yield pdf(["Gonil is in room 12."])

        headers = {"Content-Type": documents.MEDIA_TYPE}
        connector = aiohttp.TCPConnector(local_addr=(f"127.0.0.{sender}", 0))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.post(f"{self.url}{documents.PATH}", data=body(), headers=headers, expect100=True) as reply,
        ):
            return reply.status, await reply.json()


@asynccontextmanager
async def reading(
    engines: FakeEngines, folder: Path, monkeypatch: pytest.MonkeyPatch, limits: DocumentLimits
) -> AsyncIterator[Reading]:
    reader = folder / "reader"
    reader.write_text(READER.format(folder=folder, python=sys.executable))
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    monkeypatch.setattr(documents, "create_router", partial(documents.create_router, limits=limits))
    async with serving(engines, gateway_config()) as url:
        yield Reading(url, folder)


async def accepted(server: Reading, sender: int) -> asyncio.Task[tuple[int, Any]]:
    """A document of this sender's that the server asked for, however often it was refused before."""
    asked_for = asyncio.Event()
    while not asked_for.is_set():
        sending = asyncio.create_task(server.sent(sender, asked_for))
        is_asked = asyncio.create_task(asked_for.wait())
        await asyncio.wait({sending, is_asked}, return_when=asyncio.FIRST_COMPLETED)
        is_asked.cancel()
    return sending


async def test_few_documents_are_read_at_once_few_more_wait_and_others_are_refused(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(fake_engines, tmp_path, monkeypatch, DocumentLimits(at_once=1, waiting=1)) as server:
        first = asyncio.create_task(server.sent(1))
        assert await eventually(lambda: len(server.begun) == 1)
        asked_for = asyncio.Event()
        second = asyncio.create_task(server.sent(2, asked_for))
        assert await eventually(asked_for.is_set)
        status, reply = await server.sent(3)
        assert (status, reply["error"]["code"]) == (429, "overloaded")
        assert "Too many documents" in reply["error"]["message"]
        assert len(server.begun) == 1
        server.go_on()
        assert [(await each)[0] for each in (first, second)] == [200, 200]
        assert (await server.sent(3))[0] == 200
        assert len(server.begun) == 3


async def test_a_document_that_takes_too_long_is_refused_and_its_reader_ended(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(fake_engines, tmp_path, monkeypatch, DocumentLimits(at_once=1, wall_s=0.3)) as server:
        for _ in range(2):
            status, reply = await server.sent()
            assert (status, "too much time" in reply["error"]["message"]) == (400, True)
            assert server.is_over()


async def test_the_reader_of_a_client_that_leaves_is_ended_and_the_next_document_is_read(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(fake_engines, tmp_path, monkeypatch, DocumentLimits(at_once=1)) as server:
        leaving = asyncio.create_task(server.sent())
        assert await eventually(lambda: len(server.begun) == 1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await eventually(server.is_over)
        server.go_on()
        # Of another sender: the turn of the one that left ends a moment after its reader.
        assert (await server.sent(2))[0] == 200


async def test_a_client_that_leaves_while_it_waits_frees_its_place(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(fake_engines, tmp_path, monkeypatch, DocumentLimits(at_once=1, waiting=1)) as server:
        first = asyncio.create_task(server.sent(1))
        assert await eventually(lambda: len(server.begun) == 1)
        asked_for = asyncio.Event()
        leaving = asyncio.create_task(server.sent(2, asked_for))
        assert await eventually(asked_for.is_set)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        third = await accepted(server, 3)
        server.go_on()
        assert [(await each)[0] for each in (first, third)] == [200, 200]
        assert len(server.begun) == 2
