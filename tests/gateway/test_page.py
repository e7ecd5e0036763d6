"""The page's own files: who gets them, what is said of them, and that no other file can be had."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from cappella.config import Config
from cappella.gateway import page
from support.fake_engines import FakeEngines, gateway_config, serving

INDEX = b"<!doctype html><title>Cappella</title>"


@pytest.fixture
async def url(fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    web = tmp_path / "web"
    (web / "assets" / "vendor").mkdir(parents=True)
    (web / "index.html").write_bytes(INDEX)
    (web / "assets" / "app.js").write_text("export const voices = 4;\n")
    (web / "assets" / "base.css").write_text("body { margin: 0 }\n")
    (web / "assets" / "vendor" / "LICENSE.txt").write_text("Do as you like.\n")
    (web / "notes.md~").write_text("hidden words")
    (tmp_path / "secret.txt").write_text("hidden words")
    create_router = page.create_router
    monkeypatch.setattr(page, "create_router", lambda: create_router(web))
    async with serving(fake_engines, config(tmp_path)) as url:
        yield url


def config(folder: Path) -> Config:
    whole = gateway_config()
    server = whole.server.model_validate({**whole.server.model_dump(), "keys": folder / "keys.sqlite"})
    return whole.model_copy(update={"server": server})


async def get(url: str | URL, method: str = "GET", **headers: str) -> tuple[int, aiohttp.ClientResponse, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=named) as reply:
        return reply.status, reply, await reply.read()


async def test_the_page_needs_no_key_and_says_what_it_may_do(url: str) -> None:
    status, reply, body = await get(f"{url}/")
    assert (status, body) == (200, INDEX)
    policy = reply.headers.getall("Content-Security-Policy")
    assert policy == [page.POLICY]
    assert "script-src 'self';" in policy[0]
    assert "unsafe" not in policy[0]
    assert reply.headers["Cache-Control"] == "no-cache"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert (await get(f"{url}/v1/models"))[0] == 401


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/assets/app.js", "text/javascript"),
        ("/page.js", "text/javascript"),
        ("/assets/base.css", "text/css"),
        ("/assets/vendor/LICENSE.txt", "text/plain"),
    ],
)
async def test_a_file_has_its_type_and_is_not_sent_twice(url: str, path: str, kind: str) -> None:
    status, reply, body = await get(url + path)
    assert (status, reply.content_type) == (200, kind)
    tag = reply.headers["ETag"]
    for held in (tag, f'"other", W/{tag}', "*"):
        status, again, nothing = await get(url + path, If_None_Match=held)
        assert (status, nothing) == (304, b"")
        assert again.headers["Content-Security-Policy"] == page.POLICY
        assert again.headers["ETag"] == tag
    assert (await get(url + path, If_None_Match='"other"'))[2] == body


async def test_head_is_get_without_the_body(url: str) -> None:
    status, reply, body = await get(f"{url}/assets/app.js", "HEAD")
    assert (status, body) == (200, b"")
    assert reply.headers["Content-Length"] == str(len("export const voices = 4;\n"))
    assert (await get(f"{url}/assets/app.js", "POST"))[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../secret.txt",
        "/assets/%2e%2e/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..%5c..%5csecret.txt",
        "//secret.txt",
        "/notes.md~",
        "/assets",
        "/assets/",
        "/index.html/",
        "/assets/app.js%00.txt",
    ],
)
async def test_no_path_reaches_a_file_outside_the_page(url: str, path: str) -> None:
    status, _, body = await get(URL(url + path, encoded=True))
    assert status == 404
    assert b"hidden words" not in body


async def test_a_file_that_changes_is_sent_anew(url: str, tmp_path: Path) -> None:
    _, reply, _ = await get(f"{url}/assets/app.js")
    (tmp_path / "web" / "assets" / "app.js").write_text("export const voices = 5;\n")
    status, changed, body = await get(f"{url}/assets/app.js", If_None_Match=reply.headers["ETag"])
    assert (status, body) == (200, b"export const voices = 5;\n")
    assert changed.headers["ETag"] != reply.headers["ETag"]
