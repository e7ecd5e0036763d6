"""`cappella ask` at its edges: a pipe, standard input, servers that are not Cappella."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from support.command_line import cappella
from support.fake_engines import MEMBERS, FakeEngines, judge_script
from support.scripted_engine import Script


def ask(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return cappella("ask", *arguments, given=given)


@asynccontextmanager
async def stranger(
    body: str, status: int = 200, content_type: str = "text/html", headers: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """Some other server on a loopback port."""

    async def reply(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, content_type=content_type, headers=headers)

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


async def test_markup_in_an_answer_is_printed_as_it_is(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("[bold]x[/nothing]",))))
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway)
    assert done.stdout == "[bold]x[/nothing]\n"


async def test_the_question_may_come_on_standard_input(gateway: str, fake_engines: FakeEngines) -> None:
    done = await asyncio.to_thread(lambda: ask("-", "--url", gateway, given="From a pipe"))
    assert done.returncode == 0
    assert fake_engines.servers["ann"].bodies[0]["messages"][-1]["content"] == "From a pipe"


async def test_a_slash_behind_the_address_does_no_harm(gateway: str) -> None:
    assert (await asyncio.to_thread(ask, "Hi", "--url", gateway + "/")).stdout == "The final answer\n"


async def test_a_run_that_fails_in_mid_stream_is_one_line_and_exit_code_1(
    gateway: str, fake_engines: FakeEngines
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(pause_s=0.4, ending="break"))
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
    assert says in cappella(*arguments, "--help").stdout


def test_version_is_told() -> None:
    command = [sys.executable, "-m", "cappella", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"cappella \d+\.\d+\S*\n", done.stdout)


async def test_a_preset_or_a_strategy_may_be_asked_for(fake_engines: FakeEngines, gateway: str) -> None:
    done = await asyncio.to_thread(lambda: ask("Hi", "--url", gateway, "--strategy", "vote"))
    assert done.stdout.strip() == "Hello there"
    assert not fake_engines.servers["judge"].bodies
    done = await asyncio.to_thread(lambda: ask("Hi", "--url", gateway, "--preset", "none"))
    assert (done.returncode, "has no preset 'none'" in done.stderr) == (1, True)
    for flags in ([], ["--json"]):
        done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--model", "ann", "--preset", "x", *flags)
        assert "it is for ensembles" in done.stderr


async def test_any_field_of_fusion_and_a_system_text_may_be_given(fake_engines: FakeEngines, gateway: str) -> None:
    more = ("--fusion", "analysis=off", "--fusion", "analysis_models=[ann, bob]", "--system", "Be brief.")
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--json", *more)
    assert [each["model"] for each in json.loads(done.stdout)["fusion"]["responses"]] == ["ann", "bob"]
    assert len(fake_engines.servers["judge"].bodies) == 1
    assert fake_engines.servers["ann"].bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("setting", "says"),
    [("samples", "--fusion: 'samples'"), ("a={", "is not valid YAML"), ("nonsense=1", "nonsense")],
)
async def test_a_field_that_is_none_is_one_line(gateway: str, setting: str, says: str) -> None:
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--fusion", setting)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert is_one_line(done)


async def test_input_that_is_no_text_is_one_line_and_exit_code_2(gateway: str) -> None:
    done = await asyncio.to_thread(cappella, "ask", "-", "--url", gateway, given=b"\xff\xfe")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: standard input: is not UTF-8 text. Convert it first.\n"


async def test_half_a_character_in_an_answer_is_printed_as_well_as_it_can_be() -> None:
    body = 'data: {"choices": [{"delta": {"content": "left \\ud83d right"}}]}\n\ndata: [DONE]\n\n'
    async with stranger(body, 200, "text/event-stream") as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert (done.returncode, done.stdout) == (0, "left ? right\n")


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "Go away. Pass a key with --key or CAPPELLA_KEY."),
        (429, {"Retry-After": "7"}, "Go away. Retry in 7 s."),
        (503, {"Retry-After": "5"}, "Go away. Retry in 5 s; `cappella top` shows the engines."),
    ],
)
async def test_a_refusal_is_told_with_what_to_do(status: int, headers: dict[str, str], says: str) -> None:
    async with stranger('{"error": {"message": "Go away."}}', status, "application/json", headers) as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert (done.returncode, done.stderr) == (1, f"error: {says}\n")
