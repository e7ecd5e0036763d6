"""Answers on a terminal: what a person copies is what the model wrote."""

import asyncio
import io

import pytest
from rich.console import Console

from cappella.cli.client.markdown import MarkdownPrinter
from support.fake_engines import FakeEngines, judge_script
from support.scripted_engine import Script
from support.terminal_screen import terminal

COMMAND = "/usr/lib/postgresql/17/bin/initdb -D /pg/17/data --data-checksums --locale=en_US.UTF-8 --encoding=UTF8"
PROSE = "First stop the old server, then make the new cluster with the same locale as before, and only then go on."
URL = f"https://example.org/{'a' * 100}"


def grown(text: str, width: int, step: int) -> list[str]:
    """The lines that are printed of a text that comes in pieces."""
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    printer, pending = MarkdownPrinter(console), ""
    for start in range(0, len(text), step):
        pending += text[start : start + step]
        if length := printer.printable(pending):
            printer.print(pending[:length])
            pending = pending[length:]
    if pending:
        printer.print(pending)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    "code",
    [
        ("```sh", COMMAND, "```"),
        ("~~~~", "```", COMMAND, "```", "~~~~"),
        ("   ```", COMMAND, "", COMMAND, "   ```"),
        (f"    {COMMAND}",),
        ("- an item:", "  ```", f"  {COMMAND}", "  ```"),
        ("1. ```", COMMAND, "   ```"),
        ("> ```", f"> {COMMAND}", "> ```"),
    ],
)
def test_code_goes_out_as_it_is_and_prose_is_wrapped(code: tuple[str, ...], step: int) -> None:
    lines = grown("\n".join([PROSE, "", *code, "", PROSE]), 40, step)
    at = lines.index(code[0])
    assert lines[at : at + len(code)] == list(code)
    for prose in (lines[:at], lines[at + len(code) :]):
        assert all(len(line) <= 40 for line in prose)
        assert " ".join(line for line in prose if line) == PROSE


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_word_longer_than_the_line_is_not_cut(step: int) -> None:
    assert URL in grown(f"{PROSE} See {URL} for more.", 40, step)


async def test_a_command_in_an_answer_reaches_the_terminal_in_one_piece(
    gateway: str, fake_engines: FakeEngines
) -> None:
    answer = f"Run this:\n\n```sh\n{COMMAND}\n```\n\n{PROSE}\n"
    fake_engines.let("judge", judge_script(Script(tuple(answer[at : at + 5] for at in range(0, len(answer), 5)))))
    fake_engines.let("ann", Script((answer,)))

    def look() -> str:
        with terminal("ask", "Hi", "--url", gateway) as screen:
            assert screen.ended() == 0
            return screen.raw.decode()

    raw = await asyncio.to_thread(look)
    # Once as the member's, once as the judge's.
    assert raw.count(COMMAND) == 2
