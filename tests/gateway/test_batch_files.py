"""`/v1/files` as the stock client uses it, and forms that no client of good will sends."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from cappella.auth.keys import KeyStore
from cappella.gateway import uploads
from support.batch_clients import batching, create, stock_client, upload
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.kept_gateway import client, hold
from support.stored_batches import body

PATH = "/v1/files"


@pytest.fixture
async def stock(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with stock_client(fake_engines, tmp_path, max_file_bytes="1MiB", max_bytes_per_key="2MiB") as stock:
        yield stock


def contents(folder: Path) -> list[Path]:
    return sorted((folder / "batches").glob("file-*"))


async def test_a_file_is_uploaded_listed_read_and_deleted(stock: AsyncOpenAI, tmp_path: Path) -> None:
    content = b'{"a": 1}\r\n' * 20_000
    file = await upload(stock, content, expires_after={"anchor": "created_at", "seconds": 3600})
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(content), "in.jsonl", "batch", "processed")
    assert file.expires_at == file.created_at + 3600
    assert await stock.files.retrieve(file.id) == file
    assert (await stock.files.content(file.id)).content == content
    assert [each async for each in stock.files.list()] == [file]
    deleted = await stock.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    assert contents(tmp_path) == []
    for gone in (stock.files.retrieve(file.id), stock.files.content(file.id), stock.files.delete(file.id)):
        with pytest.raises(openai.NotFoundError) as raised:
            await gone
        assert raised.value.code == "file_not_found"


async def test_files_are_listed_page_by_page(stock: AsyncOpenAI) -> None:
    ids = [(await upload(stock, b"{}", f"{number}.jsonl")).id for number in range(3)]
    assert [each.id async for each in stock.files.list(limit=2)] == ids[::-1]
    assert [each.id async for each in stock.files.list(limit=1, order="asc")] == ids
    assert (await stock.files.list(limit=2, purpose="batch")).has_more
    assert (await stock.files.list(purpose="vision")).data == []
    for wrong in ({"limit": 0}, {"order": "up"}, {"after": "file-0"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            await stock.files.list(**wrong)


async def test_a_name_is_no_path(stock: AsyncOpenAI, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    for name, shown in (("../../etc/passwd", "passwd"), ("C:\\x\\y.jsonl", "y.jsonl"), ("..", ".."), ("/", "file")):
        assert (await upload(stock, b"{}", name)).filename == shown
    new = {path for path in tmp_path.rglob("*") if path not in before and "batches.sqlite" not in path.name}
    assert len(new) == 4
    assert {path.parent for path in new} == {tmp_path / "batches"}


@pytest.mark.parametrize("path", ["..%2F..%2Fbatches.sqlite", "batches.sqlite", "%2e%2e", "file-%00"])
async def test_an_id_is_no_path(stock: AsyncOpenAI, path: str) -> None:
    for end in ("", "/content"):
        async with aiohttp.ClientSession() as http, http.get(_raw(stock, f"{PATH}/{path}{end}")) as reply:
            assert reply.status == 404


def _raw(stock: AsyncOpenAI, path: str) -> Any:
    from yarl import URL

    return URL(str(stock.base_url).removesuffix("/v1/") + path, encoded=True)


async def test_what_is_too_large_is_refused_and_not_kept(stock: AsyncOpenAI, tmp_path: Path) -> None:
    with pytest.raises(openai.APIStatusError, match="max_file_bytes") as large:
        await upload(stock, bytes((1 << 20) + 1))
    assert (large.value.status_code, large.value.code) == (413, "body_too_large")
    for _ in range(2):
        await upload(stock, bytes(1 << 20))
    with pytest.raises(openai.BadRequestError, match="max_bytes_per_key") as quota:
        await upload(stock, b"1")
    assert quota.value.code == "quota_exceeded"
    assert len(contents(tmp_path)) == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"purpose": "vision"}, "purpose"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
    ],
)
async def test_a_wrong_field_is_named(stock: AsyncOpenAI, tmp_path: Path, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await stock.files.create(**{"file": ("a", b"{}"), "purpose": "batch", **more})
    assert raised.value.param == param
    assert contents(tmp_path) == []


FORM = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n'


@pytest.mark.parametrize(
    ("kind", "data", "status", "said"),
    [
        ("application/json", b"{}", 415, "multipart/form-data"),
        ("multipart/form-data", b"{}", 415, "boundary"),
        ("multipart/form-data; boundary=" + "x" * 999, b"{}", 400, "form"),
        ("multipart/form-data; boundary=x", b"", 400, "too early"),
        ("multipart/form-data; boundary=x", FORM + FILE, 400, "too early"),
        ("multipart/form-data; boundary=x", FORM + b"--x--\r\n", 400, "file is missing"),
        ("multipart/form-data; boundary=x", FILE + b"--x--\r\n", 400, "purpose is missing"),
        ("multipart/form-data; boundary=x", FORM + FILE * 2 + b"--x--\r\n", 400, "more than one file"),
        ("multipart/form-data; boundary=x", b"no form at all", 400, "form cannot be read"),
        ("multipart/form-data; boundary=x", FORM.replace(b"batch", b"b" * 70_000) + b"--x--\r\n", 413, "fields"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 500, 400, "form cannot be read"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nx\r\n--x--\r\n", 400, "file is missing"),
    ],
)
async def test_what_is_no_form_is_refused(
    stock: AsyncOpenAI, tmp_path: Path, kind: str, data: bytes, status: int, said: str
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(_raw(stock, PATH), data=data, headers={"Content-Type": kind}) as reply,
    ):
        text = await reply.text()
    assert reply.status == status, text
    assert said in text
    assert contents(tmp_path) == []


async def test_a_sender_who_stalls_is_refused(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield FORM
        await never.wait()

    never = asyncio.Event()
    real = uploads.arriving
    monkeypatch.setattr(uploads, "arriving", lambda request, most, _, take: real(request, most, 0.05, take))
    async with batching(fake_engines, tmp_path) as url, aiohttp.ClientSession() as http:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        async with http.post(url + PATH, data=stalled(), headers=kind) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (408, "body_too_slow")
        never.set()
    assert contents(tmp_path) == []


async def test_a_full_disk_is_told(stock: AsyncOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(openai.InternalServerError, match="No space left") as raised:
            await upload(stock, b"{}")
    assert (raised.value.status_code, raised.value.code) == (503, "batches_unavailable")
    assert contents(tmp_path) == []
    assert await upload(stock, b"{}")


async def test_a_compressed_form_is_refused(stock: AsyncOpenAI) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
    async with aiohttp.ClientSession() as http, http.post(_raw(stock, PATH), data=b"x", headers=kind) as reply:
        assert reply.status == 415


async def test_nothing_is_left_of_an_upload_whose_client_goes(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with batching(fake_engines, tmp_path) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999\r\n"
        kind = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        writer.write((head + kind).encode() + FILE.replace(b"{}", bytes(3 << 20)))
        await writer.drain()
        assert await eventually(lambda: bool(contents(tmp_path)))
        writer.close()
        assert await eventually(lambda: not contents(tmp_path))


async def test_a_file_is_of_its_key(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    ann, bob, root = (keys.create(name, scopes) for name, scopes in _KEYS)
    async with batching(fake_engines, tmp_path, tmp_path / "keys.sqlite") as url:
        async with client(url, ann) as stock:
            file = await upload(stock, b"{}")
        async with client(url, bob) as stock:
            assert (await stock.files.list()).data == []
            for other in (stock.files.retrieve(file.id), stock.files.content(file.id), stock.files.delete(file.id)):
                with pytest.raises(openai.NotFoundError):
                    await other
            with pytest.raises(openai.NotFoundError):
                await stock.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )
        async with client(url, root) as stock:
            assert [each.id for each in (await stock.files.list()).data] == [file.id]
            with pytest.raises(openai.PermissionDeniedError):
                await upload(stock, b"{}")
        async with client(url, "ck_wrong") as stock:
            with pytest.raises(openai.AuthenticationError):
                await stock.files.list()


_KEYS: list[tuple[str, Any]] = [("ann", ["run"]), ("bob", ["run"]), ("root", ["admin"])]


async def test_a_file_in_use_stays(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    hold(fake_engines)
    batch = await create(stock, [body()])
    with pytest.raises(openai.ConflictError, match=batch.id) as raised:
        await stock.files.delete(batch.input_file_id)
    assert raised.value.code == "batch_refused"
    fake_engines.release()


async def test_without_batches_the_endpoints_say_how_to_turn_them_on(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config()) as url, client(url) as stock:
        for asked in (stock.files.list(), upload(stock, b"{}"), stock.batches.list(), stock.batches.cancel("batch_1")):
            with pytest.raises(openai.NotFoundError, match=r"server\.batch") as raised:
                await asked
            assert raised.value.code == "batches_not_kept"
