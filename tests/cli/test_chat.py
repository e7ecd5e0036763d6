"""`cappella chat`: turns, commands and files, as a person types them and as a script sends them."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.command_line import cappella
from support.fake_engines import FakeEngines, eventually, gateway_config, judge_script, last_message, serving
from support.scripted_engine import Script
from support.terminal_screen import Terminal, terminal

PRESETS = {"quick": {"strategy": "vote", "analysis": "off"}}


def echoing(body: dict[str, Any]) -> Script:
    """A member that says what it was asked, so that a turn shows what it was sent."""
    return Script((f"you last_message {last_message(body)}",))


async def chat(url: str, look: Callable[[Terminal], None], home: Path, *more: str) -> None:
    """Open one on a terminal, and look."""

    def sit_down() -> None:
        with terminal("chat", "--url", url, *more, environment={"XDG_STATE_HOME": str(home)}) as screen:
            assert screen.until(lambda: "\n>" in screen.text), screen.text
            look(screen)

    await asyncio.to_thread(sit_down)


def enter(screen: Terminal, line: str, then: str) -> None:
    """Type it, and wait until something is seen once more than before, its own echo apart."""
    times = screen.text.count(then) + line.count(then)
    screen.type(f"{line}\r")
    assert screen.until(lambda: screen.text.count(then) > times), screen.text


def leave(screen: Terminal) -> None:
    screen.type("/quit\r")
    assert screen.ended() == 0


def piped(url: str, lines: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return cappella("chat", "--url", url, *more, given=lines)


async def test_each_turn_is_sent_with_what_was_said_before(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    def look(screen: Terminal) -> None:
        enter(screen, "First", "· judge")
        enter(screen, "Second", "· judge")
        # The members' answers are a command away: only how they went stays.
        assert screen.text.count("── ann") == 2
        assert "Hello there" not in screen.text
        screen.type("\x04")
        assert screen.ended() == 0

    await chat(gateway, look, tmp_path)
    turns = [(each["role"], each["content"]) for each in fake_engines.servers["ann"].bodies[-1]["messages"]]
    assert turns == [("user", "First"), ("assistant", "The final answer"), ("user", "Second")]


async def test_a_pasted_text_of_several_lines_is_one_turn(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    def look(screen: Terminal) -> None:
        screen.type("\x1b[200~one\ntwo\n/three\x1b[201~")
        assert screen.shows("/three")
        enter(screen, "", "· judge")

    await chat(gateway, look, tmp_path)
    assert [last_message(body) for body in fake_engines.servers["ann"].bodies] == ["one\ntwo\n/three"]


async def test_the_arrow_key_brings_back_what_was_written_in_an_earlier_chat(gateway: str, tmp_path: Path) -> None:
    def write(screen: Terminal) -> None:
        enter(screen, "Remember this", "· judge")
        leave(screen)

    def recall(screen: Terminal) -> None:
        screen.type("\x1b[A\x1b[A")
        assert screen.shows("> Remember this")

    await chat(gateway, write, tmp_path)
    assert (tmp_path / "cappella" / "chat_history").stat().st_mode & 0o777 == 0o600
    await chat(gateway, recall, tmp_path)


async def test_no_history_is_kept_if_none_is_wanted(gateway: str, tmp_path: Path) -> None:
    await chat(gateway, lambda screen: enter(screen, "A secret", "· judge"), tmp_path, "--no-history")
    assert not (tmp_path / "cappella").exists()


async def test_ctrl_c_stops_the_turn_and_not_the_chat(gateway: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script(("slow",) * 100, pause_s=1))

    def look(screen: Terminal) -> None:
        enter(screen, "Slow question", "waiting on ann")
        screen.type("\x03")
        assert screen.shows("/retry asks it again.")
        for name in ("ann", "bob", "cat"):
            fake_engines.let(name, echoing)
        enter(screen, "/retry", "· judge")
        # Ctrl-C at the prompt throws away what was written there.
        screen.type("half a ques\x03")
        enter(screen, "Whole", "· judge")
        leave(screen)

    await chat(gateway, look, tmp_path)
    asked = [[each["content"] for each in body["messages"]] for body in fake_engines.servers["ann"].bodies]
    assert asked == [["Slow question"], ["Slow question"], ["Slow question", "The final answer", "Whole"]]
    assert await eventually(lambda: fake_engines.running == 0)


async def test_why_shows_whose_words_are_in_the_answer_and_what_is_the_judges_own(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    fake_engines.let("ann", Script(("Gonil has room 412.",)))
    fake_engines.let("bob", Script(("Gonil has room 17.",)))
    fake_engines.let("judge", judge_script(Script(("Gonil has room 412. Nobody disputes whatever else.",))))

    def look(screen: Terminal) -> None:
        enter(screen, "/why", "error: /why: ")
        enter(screen, "Which room?", "· judge")
        enter(screen, "/why", "Where the time went")
        text = screen.text[screen.text.index("by words in common") :]
        lines = [line.strip() for line in text.splitlines()]
        assert lines[lines.index("Gonil has room 412.") + 1] == "ann 100%"
        assert lines[lines.index("Nobody disputes whatever else.") + 1] == "no member: the judge's own words"
        assert "both greet" in text

    await chat(gateway, look, tmp_path)


async def test_a_preset_and_a_strategy_hold_from_then_on_and_another_may_be_retried(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    def look(screen: Terminal) -> None:
        enter(screen, "/preset quik", "Use one of quick.")
        screen.type("/preset quick\r")
        enter(screen, "Hi", "ok · vote")
        enter(screen, "/retry synthesize", "ok · synthesize")
        screen.type("/preset\r")
        enter(screen, "/set samples", "/set field=value")
        enter(screen, "/nonsense", "error: /nonsense: ")

    config = gateway_config(presets=PRESETS)
    async with serving(fake_engines, config) as url:
        await chat(url, look, tmp_path)
    assert [len(body["messages"]) for body in fake_engines.servers["ann"].bodies] == [1, 1]


async def test_an_ensemble_that_asks_no_judge_names_none(fake_engines: FakeEngines, tmp_path: Path) -> None:
    def look(screen: Terminal) -> None:
        assert "ann, bob, cat" in screen.text
        assert "judge" not in screen.text
        enter(screen, "Hi", then="ok · select")
        assert "judge" not in screen.text

    config = gateway_config(strategy="select", select={"by": ["agreement"]})
    async with serving(fake_engines, config) as url:
        await chat(url, look, tmp_path)


async def test_an_error_is_a_line_and_the_chat_goes_on(gateway: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    def look(screen: Terminal) -> None:
        screen.type("/set nonsense=1\r")
        enter(screen, "Hi", "error: ")
        screen.type("/set nonsense=\r")
        enter(screen, "/retry", "· judge")
        assert "Traceback" not in screen.text

    await chat(gateway, look, tmp_path)


async def test_what_was_said_is_saved_and_nothing_is_written_over(gateway: str, tmp_path: Path) -> None:
    plain, whole = tmp_path / "talk.md", tmp_path / "talk.json"
    lines = f"Hi\n/save {plain}\n/save {whole}\n"
    done = await asyncio.to_thread(piped, gateway, lines)
    assert (done.returncode, done.stderr) == (0, "")
    assert plain.read_text() == "# cappella/default\n\n## Hi\n\nThe final answer\n"
    assert json.loads(whole.read_text())["turns"][0]["answer"] == "The final answer"
    assert whole.stat().st_mode & 0o777 == 0o600
    again = await asyncio.to_thread(piped, gateway, lines)
    assert (again.returncode, f"{plain}: exists already" in again.stderr) == (2, True)


async def test_every_line_of_a_pipe_is_a_turn(gateway: str, fake_engines: FakeEngines) -> None:
    done = await asyncio.to_thread(piped, gateway, "First\n\n/usr/bin/env is what?\n/quit\nNever\n")
    assert (done.returncode, done.stdout) == (0, "The final answer\nThe final answer\n")
    asked = [last_message(body) for body in fake_engines.servers["ann"].bodies]
    assert asked == ["First", "/usr/bin/env is what?"]


@pytest.mark.parametrize(("lines", "says"), [("/foo\nHi\n", "error: /foo: "), ("/set x=1\nHi\n", "x")])
async def test_a_script_ends_at_its_first_error(gateway: str, lines: str, says: str) -> None:
    done = await asyncio.to_thread(piped, gateway, lines)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr


async def test_input_that_is_no_text_is_one_line_and_exit_code_2(gateway: str) -> None:
    done = await asyncio.to_thread(cappella, "chat", "--url", gateway, given=b"Hi\n\xff\n")
    assert (done.returncode, done.stdout) == (2, "The final answer\n")
    assert done.stderr == "error: standard input: is not UTF-8 text. Convert it first.\n"


async def test_a_server_that_is_not_there_is_one_line_at_once() -> None:
    done = await asyncio.to_thread(piped, "http://127.0.0.1:1", "Hi\n")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "Is `cappella serve` running there?" in done.stderr


async def test_help_wraps_between_words(gateway: str, tmp_path: Path) -> None:
    def look(screen: Terminal) -> None:
        enter(screen, "/help", "so does Ctrl-D")
        for words in ("the ensemble's own", "FIELD= unsets it"):
            assert words in " ".join(screen.text.split())
        leave(screen)

    await chat(gateway, look, tmp_path)
