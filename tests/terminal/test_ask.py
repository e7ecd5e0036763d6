"""`cappella ask` at its edges: a terminal, standard input, servers that are not Cappella."""

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from choir import MEMBERS, Choir, judging
from scripted_engine import Script


def ask(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cappella", "ask", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def ask_on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Exit code and everything that was drawn, colours and cursor moves left out."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "60"}
    command = [sys.executable, "-m", "cappella", "ask", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        drawn = b""
        while data := _read(ours):
            drawn += data
        os.close(ours)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace"))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed: on Linux that is how a terminal ends
        return b""


@asynccontextmanager
async def stranger(body: str, status: int = 200, content_type: str = "text/html") -> AsyncIterator[str]:
    """Some other server on a loopback port."""

    async def reply(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, content_type=content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def is_one_line(done: "subprocess.CompletedProcess[str]") -> bool:
    return len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")


async def test_a_terminal_shows_every_member_the_answer_and_how_it_went(gateway: str, choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, Script((f"I am {name}",), pause_s=0.2))
    choir.let("bob", Script(("half",), ending="break"))
    code, drawn = await asyncio.to_thread(ask_on_a_terminal, "Hi", "--url", gateway)
    assert code == 0
    for name in MEMBERS:
        assert name in drawn
    assert "I am ann" in drawn
    assert "engine_broke" in drawn
    assert "The final answer" in drawn
    assert "degraded · judge judge" in drawn


async def test_a_terminal_shows_a_single_models_answer(gateway: str) -> None:
    code, drawn = await asyncio.to_thread(ask_on_a_terminal, "Hi", "--url", gateway, "--model", "ann")
    assert (code, "Hello there" in drawn) == (0, True)


async def test_markup_in_an_answer_is_shown_as_it_is(gateway: str, choir: Choir) -> None:
    choir.let("judge", judging(Script(("[bold]x[/nothing]",))))
    plain = await asyncio.to_thread(ask, "Hi", "--url", gateway)
    assert plain.stdout == "[bold]x[/nothing]\n"
    code, drawn = await asyncio.to_thread(ask_on_a_terminal, "Hi", "--url", gateway)
    assert (code, "[bold]x[/nothing]" in drawn) == (0, True)


async def test_the_question_may_come_on_standard_input(gateway: str, choir: Choir) -> None:
    done = await asyncio.to_thread(lambda: ask("-", "--url", gateway, given="From a pipe"))
    assert done.returncode == 0
    assert choir.servers["ann"].bodies[0]["messages"][-1]["content"] == "From a pipe"


async def test_a_slash_behind_the_address_does_no_harm(gateway: str) -> None:
    assert (await asyncio.to_thread(ask, "Hi", "--url", gateway + "/")).stdout == "The final answer\n"


async def test_a_run_that_fails_in_mid_stream_is_one_line_and_exit_code_1(gateway: str, choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, Script(pause_s=0.4, ending="break"))
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway)
    assert (done.returncode, done.stdout) == (1, "")
    assert "0 of 3 members answered" in done.stderr
    assert is_one_line(done)


@pytest.mark.parametrize(
    ("body", "status", "content_type", "more"),
    [
        ("<html>nginx</html>", 404, "text/html", ()),
        ('{"detail": "Not Found"}', 404, "application/json", ()),
        ("", 502, "text/plain", ()),
        ("<html>hello</html>", 200, "text/html", ("--json",)),
    ],
)
async def test_a_server_that_is_not_ours_is_one_line_and_exit_code_1(
    body: str, status: int, content_type: str, more: tuple[str, ...]
) -> None:
    async with stranger(body, status, content_type) as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url, *more)
    assert done.returncode == 1
    assert is_one_line(done)


async def test_a_stream_without_its_end_mark_is_no_success() -> None:
    half = 'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'
    async with stranger(half, 200, "text/event-stream") as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert done.returncode == 1


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1"])
async def test_an_address_that_is_none_is_one_line_and_exit_code_1(url: str) -> None:
    done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert done.returncode == 1
    assert is_one_line(done)


@pytest.mark.parametrize(("arguments", "says"), [((), "serve"), (("serve",), "port"), (("ask",), "json")])
def test_help_tells_what_there_is(arguments: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "cappella", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert says in done.stdout


def test_version_is_told() -> None:
    command = [sys.executable, "-m", "cappella", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"cappella \d+\.\d+\S*\n", done.stdout)


async def test_a_preset_or_a_strategy_may_be_asked_for(choir: Choir, gateway: str) -> None:
    done = await asyncio.to_thread(lambda: ask("Hi", "--url", gateway, "--strategy", "vote"))
    assert done.stdout.strip() == "Hello there"
    assert not choir.servers["judge"].bodies
    done = await asyncio.to_thread(lambda: ask("Hi", "--url", gateway, "--preset", "none"))
    assert (done.returncode, "has no preset 'none'" in done.stderr) == (1, True)
    for flags in ([], ["--json"]):
        done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--model", "ann", "--preset", "x", *flags)
        assert "fusion is for ensembles" in done.stderr
