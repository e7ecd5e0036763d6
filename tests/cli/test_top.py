"""`cappella top` over a server that says what the contract of `/api/machine` is, or less."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from support.command_line import cappella
from support.terminal_screen import Terminal, terminal

GIB = 1 << 30
MACHINE: dict[str, Any] = {
    "time": 1700000000.0,
    "version": "0.1.0",
    "ensembles": {
        "default": {
            "answers": True,
            "panel": ["ann", "bob"],
            "judge": "judge",
            "presets": [],
            "waiting": 3,
            "in_flight": 2,
        },
        "late": {"answers": False, "panel": ["cat"], "judge": "judge", "presets": [], "waiting": 0, "in_flight": 0},
    },
    "engines": {
        "ann": {
            "state": "ready",
            "stage": "ready",
            "progress": 1.0,
            "remaining_s": None,
            "restarts": 1,
            "gpus": [0],
            "used_bytes": 5 * GIB,
            "kv_usage": 0.5,
            "running": 4,
            "waiting": 2,
            "tokens_per_s": 123.4,
        },
        "bob": {"state": "loading", "stage": "loading weights", "progress": 0.75, "remaining_s": 43.0, "restarts": 0},
        "cat": {"state": "loading", "stage": "importing vLLM", "progress": 0.05, "remaining_s": None, "restarts": 0},
        "dan": {"state": "failed", "stage": "gave up after 5 tries: out of memory", "reason": "out of memory"},
    },
    "memory": [
        {
            "device": "GPU 0",
            "total_bytes": 24 * GIB,
            "free_bytes": 6 * GIB,
            "busy_percent": 71,
            "engines": {"ann": 12 * GIB, "bob": 6 * GIB},
        }
    ],
    "queue": {},
}


class Said:
    """What the server says now, and how often it was asked."""

    def __init__(self, machine: dict[str, Any]) -> None:
        self.machine = machine
        self.status = 200
        self.times = 0


@asynccontextmanager
async def operated(said: Said) -> AsyncIterator[str]:
    async def machine(_: web.Request) -> web.Response:
        said.times += 1
        return web.json_response(said.machine, status=said.status)

    app = web.Application()
    app.router.add_get("/api/machine", machine)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def top(url: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return cappella("top", "--url", url, *more)


def line_of(screen: Terminal, name: str) -> str:
    return next((line for line in screen.lines if line.startswith(f"{name} ")), "")


async def test_a_terminal_shows_engines_ensembles_and_memory_and_what_changes() -> None:
    said = Said(MACHINE)

    def look(url: str) -> None:
        with terminal("top", "--url", url) as screen:
            assert screen.shows("q ends")
            assert line_of(screen, "engine").split()[2:] == ["tok/s", "run", "wait", "KV", "restarts"]
            assert line_of(screen, "ann").split() == ["ann", "ready", "123", "4", "2", "██··", "50%", "1"]
            assert "loading weights, about 45 s left" in line_of(screen, "bob")
            assert "loading: importing vLLM (5%)" in line_of(screen, "cat")
            assert line_of(screen, "dan").split() == ["dan", "failed"]
            assert "dan: gave up after 5 tries: out of memory" in screen.lines
            assert "cappella/default answers · 2 under way · 3 waiting · ann, bob → judge" in screen.lines
            assert "cappella/late does not answer yet" in screen.text
            bar = line_of(screen, "GPU 0")
            assert bar.endswith("18.0 of 24.0 GiB used, 71% busy")
            cells = bar[bar.index("▕") + 1 : bar.index("▏")]
            shares = [cells.count(mark) / len(cells) for mark in "ab·"]
            assert shares == [pytest.approx(share, abs=0.03) for share in (0.5, 0.25, 0.25)]
            assert "a ann 12.00 (5.00 used), b bob 6.00" in screen.text
            said.machine = {**MACHINE, "engines": {"ann": {"state": "asleep", "stage": "asleep"}}}
            assert screen.until(lambda: line_of(screen, "ann").split() == ["ann", "asleep"])
            said.status = 500
            assert screen.shows("no answer for ")
            screen.type("q")
            assert screen.ended() == 0
            assert screen.cursor_is_shown

    async with operated(said) as url:
        await asyncio.to_thread(look, url)
    assert said.times >= 3


async def test_the_last_failure_is_shown_after_a_recovery() -> None:
    failure = {"time": 1700000000.0, "reason": "killed by signal 9 (SIGKILL)", "log": "/logs/ann.log"}
    ann = {"state": "ready", "stage": "ready", "last_failure": failure}
    async with operated(Said({**MACHINE, "engines": {"ann": ann}})) as url:
        done = await asyncio.to_thread(top, url)
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(1700000000.0))
    assert f"ann: last failed {clock}: killed by signal 9 (SIGKILL) (log: /logs/ann.log)" in done.stdout


async def test_ctrl_c_ends_it_without_a_word() -> None:
    def look(url: str) -> None:
        with terminal("top", "--url", url) as screen:
            assert screen.shows("q ends")
            screen.type("\x03")
            assert screen.ended() == 0
            assert "Traceback" not in screen.raw.decode()

    async with operated(Said(MACHINE)) as url:
        await asyncio.to_thread(look, url)


async def test_more_engines_than_lines_are_counted() -> None:
    many = {f"engine{number:02}": {"state": "ready", "stage": "ready"} for number in range(60)}

    def look(url: str) -> None:
        with terminal("top", "--url", url) as screen:
            assert screen.shows("q ends")
            shown = sum(line.startswith("engine") and "ready" in line for line in screen.lines)
            assert f"… {60 - shown} more" in screen.text
            assert shown > 10

    async with operated(Said({**MACHINE, "engines": many, "memory": []})) as url:
        await asyncio.to_thread(look, url)


async def test_scripts_get_json_and_a_pipe_gets_it_once() -> None:
    async with operated(Said(MACHINE)) as url:
        assert json.loads((await asyncio.to_thread(top, url, "--json")).stdout) == MACHINE
        plain = await asyncio.to_thread(top, url)
    assert plain.returncode == 0
    assert "loading weights, about 45 s left" in plain.stdout
    assert "\x1b" not in plain.stdout


async def test_the_real_endpoint_says_what_is_shown(gateway: str) -> None:
    said = json.loads((await asyncio.to_thread(top, gateway, "--json")).stdout)
    shown = (await asyncio.to_thread(top, gateway)).stdout
    assert set(said["engines"]) == {"ann", "bob", "cat", "judge"}
    for name, each in said["engines"].items():
        assert any(line.split()[:2] == [name, each["state"]] for line in shown.splitlines())
    assert "cappella/default answers" in shown
    assert "used" in shown


async def test_what_a_key_may_not_see_is_left_out() -> None:
    narrow = {
        "engines": {"ann": {"state": "loading", "stage": "loading weights", "progress": 0.75, "remaining_s": 3.2}},
        "ensembles": {"default": {"answers": False}},
    }
    async with operated(Said(narrow)) as url:
        done = await asyncio.to_thread(top, url)
        empty = await asyncio.to_thread(top, url)
    assert (done.returncode, empty.returncode) == (0, 0)
    assert "loading weights, about 3 s left" in done.stdout


async def test_a_server_that_does_not_answer_is_one_line_and_exit_code_1() -> None:
    refused = Said({"error": {"message": "Not found."}})
    refused.status = 404
    async with operated(refused) as url:
        old = await asyncio.to_thread(top, url)
    nowhere = await asyncio.to_thread(top, "http://127.0.0.1:1", "--once")
    for done in (old, nowhere):
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
