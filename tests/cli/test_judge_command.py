"""`cappella judge`: one question, and files that go on where they stopped."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.command_line import cappella
from support.fake_engines import FakeEngines
from support.judging_script import judging


@pytest.fixture(autouse=True)
def even_judge(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judging({"blue": 9, "red": 1}))


async def run(*arguments: str | Path) -> Any:
    return await asyncio.to_thread(cappella, "judge", *arguments)


def questions(folder: Path, count: int = 3, **more: Any) -> Path:
    path = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "prompt": f"Colour {i}?", "answers": ["red", "blue"], **more} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_one_question_is_shown_as_tables_or_as_json(gateway: str) -> None:
    asked = ("--prompt", "Which?", "--answer", "red", "--answer", "blue", "--server", gateway)
    done = await run(*asked, "--want", "scores,ranking,preference", "--criteria", "Be kind.")
    assert done.returncode == 0, done.stderr
    for part in ("candidate~2", "9/10", "it says blue", "mean probability by place: A 0.5, B 0.5", "judge judge"):
        assert part in done.stdout
    reply = json.loads((await run(*asked, "--model", "judge", "--json")).stdout)
    assert (reply["model"], reply["ranking"][0]["model"]) == ("judge", "candidate~2")


async def test_a_file_is_judged_once_however_often_it_is_called(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data, out = questions(tmp_path), tmp_path / "out.jsonl"
    call = (data, "--server", gateway, "--criteria", "Right.", "-o", out)
    done = await run(*call)
    assert done.returncode == 0, done.stderr
    assert {each["id"] for each in lines(out)} == {"q0", "q1", "q2"}
    assert all(each["scores"][1]["points"] == 9 for each in lines(out))
    asked = len(fake_engines.servers["judge"].bodies)
    # A line that broke off is judged again, and no other.
    whole = out.read_text().splitlines(keepends=True)
    out.write_text("".join(whole[:2]) + whole[2][:40])
    done = await run(*call)
    assert "2 of them judged already" in done.stderr
    assert len(fake_engines.servers["judge"].bodies) == asked + 2
    assert {each["id"] for each in lines(out)} == {"q0", "q1", "q2"}
    # Other criteria are other judgements.
    await run(data, "--server", gateway, "--criteria", "Short.", "-o", out)
    assert len(lines(out)) == 6


async def test_what_is_refused_has_its_error_and_is_asked_again(gateway: str, tmp_path: Path) -> None:
    data, out = questions(tmp_path, 1, want=["scores", "praise"]), tmp_path / "out.jsonl"
    for _ in range(2):
        done = await run(data, "--server", gateway, "-o", out)
        assert done.returncode == 1
        (line,) = lines(out)
        assert "want.1" in line["error"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "questions.jsonl:2: is no JSON object"),
        ('{"prompt": "x", "answers": []}', "has no list of answers"),
        ('{"answers": ["x"]}', "needs either prompt or messages"),
        ('{"prompt": "x", "answer": ["x"]}', "unknown key 'answer'"),
    ],
)
async def test_a_mistake_in_a_file_is_told_with_its_line(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path, line: str, says: str
) -> None:
    data = questions(tmp_path, 1)
    data.write_text(f"{data.read_text()}\n{line}")
    done = await run(data, "--server", gateway, "-o", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert says in done.stderr
    assert not fake_engines.servers["judge"].bodies


@pytest.mark.parametrize(
    "arguments",
    [(), ("--prompt", "x"), ("x.jsonl",), ("--prompt", "x", "--answer", "y", "--model", "a", "--ensemble", "b")],
)
async def test_a_call_that_lacks_something_is_a_mistake(arguments: tuple[str, ...]) -> None:
    assert (await run(*arguments)).returncode == 2


async def test_a_file_of_something_else_is_not_overwritten(gateway: str, tmp_path: Path) -> None:
    data, out = questions(tmp_path), tmp_path / "notes.txt"
    out.write_text("mine\nand mine\n")
    assert (await run(data, "--server", gateway, "-o", out)).returncode == 2
    assert out.read_text() == "mine\nand mine\n"
