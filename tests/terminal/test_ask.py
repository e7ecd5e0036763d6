"""`cappella ask` at its edges: a terminal, standard input, servers that are not Cappella."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from choir import MEMBERS, Choir, eventually, judging
from screen import terminal
from scripted_engine import Script


def ask(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cappella", "ask", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


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


def story(pieces: int, pause_s: float, word: str) -> Script:
    """So many numbered words, one at a time."""
    return Script(tuple(f"{word}{number} " for number in range(pieces)), pause_s=pause_s)


async def test_a_terminal_shows_every_member_the_analysis_the_answer_and_where_the_time_went(
    gateway: str, choir: Choir
) -> None:
    for name in MEMBERS:
        choir.let(name, Script((f"I am {name}",), pause_s=0.2))
    choir.let("bob", Script(("half",), ending="break"))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.ended() == 0
            heads = [line for line in screen.text.splitlines() if line.startswith("── ")]
            assert [line.split()[1] for line in heads] == list(MEMBERS)
            assert "engine_broke" in heads[1]
            order = ["── ann", "I am ann", "All agree", "both greet", "The final answer", "judge answers", "floor"]
            places = [screen.text.index(words) for words in order]
            assert places == sorted(places)
            assert "degraded · synthesize · judge judge" in screen.text
            assert screen.cursor_is_shown

    await asyncio.to_thread(look)


async def test_while_it_runs_the_screen_says_who_writes_how_fast_and_who_is_waited_for(
    gateway: str, choir: Choir
) -> None:
    choir.let("ann", story(40, 0.1, "ann"))
    choir.let("cat", Script(pause_s=60))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.until(lambda: "ann20" in screen.text)
            assert screen.until(
                lambda: re.search(r"── ann ─+ writes, about \d+ tokens, \d+/s", screen.text) is not None
            )
            assert re.search(r"── bob ─+ 2 tokens, ", screen.text)
            assert re.search(r"── cat ─+ reads the question, \d", screen.text)
            assert re.search(r"waiting on ann, cat, \d\.\d s, 1 of 3 are done", screen.text)

    await asyncio.to_thread(look)


async def test_a_long_panel_never_outgrows_the_screen_and_its_answer_can_be_read_from_the_start(
    gateway: str, choir: Choir
) -> None:
    for name in MEMBERS:
        choir.let(name, story(400, 0.001, name))
    choir.let("judge", judging(story(400, 0.001, "word")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.until(lambda: screen.process.poll() is not None)
            assert screen.ended() == 0
            words = screen.text.split()
            # Nothing twice, nothing lost: what moved on the screen left nothing behind.
            for name in ("word", *MEMBERS):
                assert [word for word in words if re.fullmatch(rf"{name}\d+", word)] == [
                    f"{name}{number}" for number in range(400)
                ]
            assert "⠋" not in screen.text

    await asyncio.to_thread(look)


async def test_the_analysis_is_seen_while_the_judge_writes_it(gateway: str, choir: Choir) -> None:
    half = '{"consensus": ["both greet"], "contradictions": [{"topic": "tone", "stances": [{"model": "A", "sta'
    choir.let("judge", judging(analysis=Script((half,), ending="hang")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.shows("judge compares the answers")

    await asyncio.to_thread(look)


async def test_ctrl_c_stops_the_run_frees_the_engines_and_exits_with_130(gateway: str, choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, Script(("slow",) * 100, pause_s=1))

    def look() -> tuple[int, str, bool]:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.shows("waiting on ann, bob, cat")
            screen.type("\x03")
            return screen.ended(), screen.text, screen.cursor_is_shown

    code, text, cursor_is_shown = await asyncio.to_thread(look)
    assert (code, cursor_is_shown) == (130, True)
    assert text.endswith("Stopped.")
    assert "Traceback" not in text
    assert await eventually(lambda: choir.running == 0)


async def test_without_colours_the_same_is_told(gateway: str) -> None:
    def look(**environment: str) -> tuple[bool, str]:
        with terminal("ask", "Hi", "--url", gateway, environment=environment) as screen:
            assert screen.ended() == 0
            return screen.is_coloured, screen.text

    coloured, plain = await asyncio.to_thread(look), await asyncio.to_thread(look, NO_COLOR="1")
    assert (coloured[0], plain[0]) == (True, False)
    for words in ("── ann ─", "All agree", "The final answer", "floor"):
        assert words in plain[1]


async def test_a_terminal_that_cannot_draw_gets_the_answer_alone(gateway: str) -> None:
    def look() -> str:
        with terminal("ask", "Hi", "--url", gateway, environment={"TERM": "dumb"}) as screen:
            assert screen.ended() == 0
            return screen.raw.decode()

    assert await asyncio.to_thread(look) == "The final answer\r\n"


async def test_quiet_prints_the_answer_alone_as_it_comes(gateway: str, choir: Choir) -> None:
    choir.let("judge", judging(Script(("The", " final", " answer"), ending="hang")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway, "--quiet") as screen:
            assert screen.shows("The final answer")
            assert screen.text == "The final answer"

    await asyncio.to_thread(look)


async def test_what_a_model_writes_cannot_steer_the_terminal(gateway: str, choir: Choir) -> None:
    nasty = "\x1b]0;title\x07\x1b[2Jgone\x9b31m\x08end"
    choir.let("ann", Script((nasty,)))
    choir.let("judge", judging(Script((nasty,))))
    for flags in ((), ("--quiet",)):

        def look(more: tuple[str, ...] = flags) -> tuple[str, bytes]:
            with terminal("ask", "Hi", "--url", gateway, *more) as screen:
                assert screen.ended() == 0
                return screen.text, screen.raw

        text, raw = await asyncio.to_thread(look)
        assert "␛]0;title␇␛[2Jgone" in text
        assert not [part for part in (b"\x1b]0;", b"\x1b[2J", "\x9b".encode()) if part in raw]


async def test_a_terminal_shows_a_single_models_answer(gateway: str) -> None:
    def look() -> str:
        with terminal("ask", "Hi", "--url", gateway, "--model", "ann") as screen:
            assert screen.ended() == 0
            return screen.text

    text = await asyncio.to_thread(look)
    assert text.startswith("Hello there\n")
    assert "ann · 2 tokens · " in text


async def test_markup_in_an_answer_is_shown_as_it_is(gateway: str, choir: Choir) -> None:
    choir.let("judge", judging(Script(("[bold]x[/nothing]",))))
    plain = await asyncio.to_thread(ask, "Hi", "--url", gateway)
    assert plain.stdout == "[bold]x[/nothing]\n"

    def look() -> bool:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            return screen.shows("[bold]x[/nothing]")

    assert await asyncio.to_thread(look)


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


async def test_any_field_of_fusion_and_a_system_text_may_be_given(choir: Choir, gateway: str) -> None:
    more = ("--fusion", "analysis=off", "--fusion", "analysis_models=[ann, bob]", "--system", "Be brief.")
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--json", *more)
    assert [each["model"] for each in json.loads(done.stdout)["fusion"]["responses"]] == ["ann", "bob"]
    assert len(choir.servers["judge"].bodies) == 1
    assert choir.servers["ann"].bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("setting", "says"),
    [("samples", "'samples' sets nothing"), ("a={", "is no YAML"), ("nonsense=1", "nonsense")],
)
async def test_a_field_that_is_none_is_one_line(gateway: str, setting: str, says: str) -> None:
    done = await asyncio.to_thread(ask, "Hi", "--url", gateway, "--fusion", setting)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert is_one_line(done)


async def test_input_that_is_no_text_is_one_line_and_exit_code_2(gateway: str) -> None:
    command = [sys.executable, "-m", "cappella", "ask", "-", "--url", gateway]
    done = await asyncio.to_thread(
        subprocess.run, command, input=b"\xff\xfe", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: standard input: is not UTF-8 text. Convert it first.\n"


async def test_half_a_character_in_an_answer_is_printed_as_well_as_it_can_be() -> None:
    body = 'data: {"choices": [{"delta": {"content": "left \\ud83d right"}}]}\n\ndata: [DONE]\n\n'
    async with stranger(body, 200, "text/event-stream") as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert (done.returncode, done.stdout) == (0, "left ? right\n")


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "Go away. Give one with --key, or in CAPPELLA_KEY."),
        (429, {"Retry-After": "7"}, "Go away. Ask again in 7 s."),
        (503, {"Retry-After": "5"}, "Go away. Ask again in 5 s; `cappella top` shows how far the engines are."),
    ],
)
async def test_a_refusal_is_told_with_what_to_do(status: int, headers: dict[str, str], says: str) -> None:
    async with stranger('{"error": {"message": "Go away."}}', status, "application/json", headers) as url:
        done = await asyncio.to_thread(ask, "Hi", "--url", url)
    assert (done.returncode, done.stderr) == (1, f"error: {says}\n")
