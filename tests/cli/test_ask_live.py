"""`cappella ask` as a person sees it on a terminal, while it runs and afterwards."""

import asyncio
import re

import pytest

from support.fake_engines import MEMBERS, FakeEngines, eventually, judge_script
from support.found_passages import FAQ, RATES, find
from support.scripted_engine import Script
from support.terminal_screen import terminal


def story(pieces: int, pause_s: float, word: str) -> Script:
    """So many numbered words, one at a time."""
    return Script(tuple(f"{word}{number} " for number in range(pieces)), pause_s=pause_s)


async def test_a_terminal_shows_every_member_the_analysis_the_answer_and_a_summary(
    gateway: str, fake_engines: FakeEngines
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((f"I am {name}",), pause_s=0.2))
    fake_engines.let("bob", Script(("half",), ending="break"))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.ended() == 0
            heads = [line for line in screen.text.splitlines() if line.startswith("── ")]
            assert [line.split()[1] for line in heads] == list(MEMBERS)
            assert "engine_broke" in heads[1]
            order = ["── ann", "I am ann", "All agree", "both greet", "The final answer", "degraded · synthesize"]
            places = [screen.text.index(words) for words in order]
            assert places == sorted(places)
            assert "degraded · synthesize · judge judge" in screen.text
            assert screen.cursor_is_shown

    await asyncio.to_thread(look)


async def test_while_it_runs_the_screen_says_who_writes_how_fast_and_who_is_waited_for(
    gateway: str, fake_engines: FakeEngines
) -> None:
    fake_engines.let("ann", story(40, 0.1, "ann"))
    fake_engines.let("cat", Script(pause_s=60))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.until(lambda: "ann20" in screen.text)
            patterns = [
                r"── ann ─+ writes, about \d+ tokens, \d+/s",
                r"── bob ─+ 2 tokens, ",
                r"── cat ─+ reads the question, \d",
                r"waiting on ann, cat, \d\.\d s, 1 of 3 are done",
            ]
            # The screen is read while it is drawn: all of it is there between two pictures.
            assert screen.until(lambda: all(re.search(pattern, screen.text) for pattern in patterns))

    await asyncio.to_thread(look)


async def test_a_long_panel_never_outgrows_the_screen_and_its_answer_can_be_read_from_the_start(
    gateway: str, fake_engines: FakeEngines
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, story(400, 0.001, name))
    fake_engines.let("judge", judge_script(story(400, 0.001, "word")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.ended() == 0
            words = screen.text.split()
            # Nothing twice, nothing lost: what moved on the screen left nothing behind.
            for name in ("word", *MEMBERS):
                assert [word for word in words if re.fullmatch(rf"{name}\d+", word)] == [
                    f"{name}{number}" for number in range(400)
                ]
            assert "⠋" not in screen.text

    await asyncio.to_thread(look)


async def test_the_analysis_is_seen_while_the_judge_writes_it(gateway: str, fake_engines: FakeEngines) -> None:
    half = '{"consensus": ["both greet"], "contradictions": [{"topic": "tone", "stances": [{"model": "A", "sta'
    fake_engines.let("judge", judge_script(analysis=Script((half,), ending="hang")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.shows("judge compares the answers")

    await asyncio.to_thread(look)


async def test_ctrl_c_stops_the_run_frees_the_engines_and_exits_with_130(
    gateway: str, fake_engines: FakeEngines
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("slow",) * 100, pause_s=1))

    def look() -> tuple[int, str, bool]:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.shows("waiting on ann, bob, cat")
            screen.type("\x03")
            return screen.ended(), screen.text, screen.cursor_is_shown

    code, text, cursor_is_shown = await asyncio.to_thread(look)
    assert (code, cursor_is_shown) == (130, True)
    assert text.endswith("Stopped.")
    assert "Traceback" not in text
    assert await eventually(lambda: fake_engines.running == 0)


async def test_without_colours_the_same_is_told(gateway: str) -> None:
    def look(**environment: str) -> tuple[bool, str]:
        with terminal("ask", "Hi", "--url", gateway, environment=environment) as screen:
            assert screen.ended() == 0
            return screen.is_coloured, screen.text

    coloured, plain = await asyncio.to_thread(look), await asyncio.to_thread(look, NO_COLOR="1")
    assert (coloured[0], plain[0]) == (True, False)
    for words in ("── ann ─", "All agree", "The final answer", "· judge judge"):
        assert words in plain[1]


async def test_a_terminal_that_cannot_draw_gets_the_answer_alone(gateway: str) -> None:
    def look() -> str:
        with terminal("ask", "Hi", "--url", gateway, environment={"TERM": "dumb"}) as screen:
            assert screen.ended() == 0
            return screen.raw.decode()

    assert await asyncio.to_thread(look) == "The final answer\r\n"


async def test_quiet_prints_the_answer_alone_as_it_comes(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("The", " final", " answer"), ending="hang")))

    def look() -> None:
        with terminal("ask", "Hi", "--url", gateway, "--quiet") as screen:
            assert screen.shows("The final answer")
            assert screen.text == "The final answer"

    await asyncio.to_thread(look)


async def test_what_a_model_writes_cannot_steer_the_terminal(gateway: str, fake_engines: FakeEngines) -> None:
    nasty = "\x1b]0;title\x07\x1b[2Jgone\x9b31m\x08end"
    fake_engines.let("ann", Script((nasty,)))
    fake_engines.let("judge", judge_script(Script((nasty,))))
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


async def test_markup_in_an_answer_is_shown_as_it_is(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("[bold]x[/nothing]",))))

    def look() -> bool:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            return screen.shows("[bold]x[/nothing]")

    assert await asyncio.to_thread(look)


async def test_where_the_time_went_is_shown_when_asked_for(gateway: str) -> None:
    def look(*more: str) -> str:
        with terminal("ask", "Hi", "--url", gateway, *more) as screen:
            assert screen.ended() == 0
            return screen.text

    assert "floor" not in await asyncio.to_thread(look)
    text = await asyncio.to_thread(look, "--why")
    order = ["The final answer", "· judge judge", "Who said what", "judge answers", "floor"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


async def test_below_an_answer_stand_the_sources_that_it_cites(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(monkeypatch, RATES, FAQ)
    fake_engines.let("judge", judge_script(Script(("It is 28 EUR [S1, S9].",))))

    def look() -> None:
        with terminal("ask", "How much?", "--url", gateway) as screen:
            assert screen.ended() == 0
            order = [
                "It is 28 EUR [S1].",
                "[S1] Rates 2024, travel/rates.md, page 2  found by ann, bob",
                "ok · synthesize",
            ]
            places = [screen.text.index(words) for words in order]
            assert places == sorted(places)
            assert "hr/faq.md" not in screen.text
            assert "cut from the answer: S9" in screen.text

    await asyncio.to_thread(look)
