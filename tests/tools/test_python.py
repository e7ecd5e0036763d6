"""Python programs of models: what they get back, and what they are told when they fail."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from cappella.tools import sandbox
from cappella.tools.base import ToolResult
from cappella.tools.builtin.python import MAX_AT_ONCE, Python


async def ran(program: str) -> ToolResult:
    server = Python("py")
    await server.start()
    await server.started()
    if server.problem:
        pytest.skip(server.problem)
    return await server.call("run_python", {"program": program})


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("print(1 + 1)", "2"),
        ("x = [1, 2]\nsum(x)", "3"),
        ("print('a')\n3", "a"),
        ("None", "The program ended and printed nothing: print what you want to know."),
        ("import statistics, json, math, datetime, re, itertools\nstatistics.mean([1, 3])", "2"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(2)", "P(x=2)"),
        ("import threading\nt = threading.Thread(target=print, args=('hi',))\nt.start()\nt.join()", "hi"),
        ("'é' * 3", "'ééé'"),
        ("if __name__ == '__main__':\n    print('main')", "main"),
    ],
)
async def test_what_a_program_prints_or_its_last_value_comes_back(program: str, text: str) -> None:
    assert await ran(program) == ToolResult(text)


async def test_an_error_is_told_with_its_own_lines_alone() -> None:
    result = await ran("print('before')\ndef f(x):\n    return 1 / x\nf(0)")
    assert result.is_error
    lines = result.text.splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert '  File "program", line 3, in f' in lines
    assert "    return 1 / x" in lines
    assert {line.split('"')[1] for line in lines if "File" in line} == {"program"}


@pytest.mark.parametrize(
    ("program", "told"),
    [("def f(:", "SyntaxError"), ("import sys\nsys.exit(3)", "exit code 3"), ("input()", "EOFError")],
)
async def test_a_program_that_cannot_end_well_is_told_why(program: str, told: str) -> None:
    result = await ran(program)
    assert result.is_error
    assert told in result.text


async def test_of_long_output_the_end_is_kept() -> None:
    result = await ran("for i in range(10_000): print(i)")
    assert result.text.startswith("[only the end is shown]")
    assert result.text.endswith("9998\n9999")
    assert len(result.text) < 10_000


async def test_runs_know_nothing_of_each_other() -> None:
    server = Python("py")
    await server.start()
    await server.started()
    if server.problem:
        pytest.skip(server.problem)
    one = "import os\nopen('x', 'w').write('1')\nos.listdir('.')"
    results = await asyncio.gather(*(server.call("run_python", {"program": one}) for _ in range(6)))
    assert {result.text for result in results} == {"['x']"}


async def test_without_namespaces_it_is_not_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "confined.py"
    source = sandbox.SCRIPT.read_text().replace('    _call("unshare", NEW_NAMESPACES)', '    raise OSError("not here")')
    script.write_text(source)
    monkeypatch.setattr(sandbox, "SCRIPT", script)
    server = Python("py")
    await server.start()
    await server.started()
    assert server.problem is not None
    assert "user namespaces" in server.problem
    assert server.tools == ()
    assert (await server.call("run_python", {"program": "1"})).is_error


def test_it_runs_in_the_gateways_event_loop() -> None:
    """uvloop's, whose transports are other ones than asyncio's; also for what prints more than it may."""

    async def both() -> list[ToolResult]:
        return [await ran("1 + 1"), await ran("while True: print('x' * 1000)")]

    short, long = uvloop.run(both())
    assert short == ToolResult("2")
    assert "printed more than" in long.text


async def test_who_waits_too_long_for_a_place_is_told_and_a_stop_ends_what_runs() -> None:
    server = Python("py", max_wait_s=0.0)
    await server.start()
    await server.started()
    if server.problem:
        pytest.skip(server.problem)
    sleep = {"program": "import time; time.sleep(10_000)"}
    running = [asyncio.create_task(server.call("run_python", sleep)) for _ in range(MAX_AT_ONCE)]
    while len(server._answering) < MAX_AT_ONCE:
        await asyncio.sleep(0)
    busy = await server.call("run_python", {"program": "1"})
    assert busy.is_error
    assert "busy" in busy.text
    await server.stop()
    stopped = await asyncio.gather(*running)
    assert {result.text for result in stopped} == {"This tool was stopped before it answered."}
