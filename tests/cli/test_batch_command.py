"""`cappella batch`: files of rows, through a real gateway over scripted engines, that go on where they stopped."""

import asyncio
import csv
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow
import pytest
from pyarrow import parquet

from support.batch_gateway import asked, batch_config
from support.command_line import Command, cappella, start
from support.fake_engines import FakeEngines, eventually, last_message, serving
from support.scripted_engine import Script

CHAT = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
NOTES = 'id,text\nn1,The {first} note.\nn2,"The second, with a comma\nand a line."\n'


@pytest.fixture
async def server(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[str]:
    async with serving(fake_engines, batch_config(tmp_path)) as url:
        yield url


async def run(*arguments: str | Path) -> Any:
    return await asyncio.to_thread(cappella, "batch", *arguments)


def begin(*arguments: str | Path) -> Command:
    with open(os.devnull, "r+b") as nothing:
        return start(["batch", *map(str, arguments)], [nothing.fileno()] * 3)


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(path: Path) -> dict[str, Any]:
    return {each["id"]: each for each in lines(path)}


async def completed(http: aiohttp.ClientSession, batch_id: str) -> Any:
    """The batch, once it has completed."""
    found: Any = {}

    async def look() -> bool:
        nonlocal found
        found = await (await http.get(f"/v1/batches/{batch_id}")).json()
        return bool(found["status"] == "completed")

    while not await look():
        await asyncio.sleep(0.05)
    return found


async def kept_at(url: str) -> int:
    """How many files the server has."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/files") as reply:
        return len((await reply.json())["data"])


async def test_questions_of_json_lines_are_answered_once_however_often_it_is_called(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    rows = [{"prompt": "First?"}, {"id": "own", "messages": [{"role": "user", "content": "Second?"}]}]
    data, out = file(tmp_path, "in.jsonl", "\n".join(map(json.dumps, rows))), tmp_path / "out.jsonl"
    done = await run(data, "-o", out, "--server", server)
    assert done.returncode == 0, done.stderr
    assert {name: each["answer"] for name, each in by_id(out).items()} == dict.fromkeys(
        ("1", "own"), "The final answer"
    )
    assert by_id(out)["own"]["status"] == "ok"
    assert await kept_at(server) == 0
    assert not list(tmp_path.glob("*.running"))
    done = await run(data, "-o", out, "--server", server)
    assert "2 of them answered already" in done.stderr
    assert sorted(asked(fake_engines, "ann")) == ["First?", "Second?"]


async def test_a_table_is_asked_by_a_template_and_gets_a_column_of_answers(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data, out = file(tmp_path, "notes.csv", NOTES), tmp_path / "answers.csv"
    call = ("--prompt", "Sum up {{briefly}}: {text}", "--system", "You read {id}.", "--body", '{"temperature": 0.5}')
    done = await run(data, "-o", out, "--server", server, "--model", "ann", *call)
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["id"], row["answer"]) for row in rows] == [("n1", "Hello there"), ("n2", "Hello there")]
    assert rows[1]["text"] == "The second, with a comma\nand a line."
    body = next(each for each in fake_engines.servers["ann"].bodies if "{first}" in last_message(each))
    assert [each["content"] for each in body["messages"]] == ["You read n1.", "Sum up {briefly}: The {first} note."]
    assert body["temperature"] == 0.5


async def test_parquet_is_read_and_written(server: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    data, out = tmp_path / "notes.parquet", tmp_path / "answers.parquet"
    parquet.write_table(pyarrow.table({"text": ["One.", "Two."], "stars": [5, None]}), data)
    call = (data, "-o", out, "--server", server, "--model", "ann", "--prompt", "{stars}: {text}")
    done = await run(*call)
    assert done.returncode == 0, done.stderr
    assert sorted(asked(fake_engines, "ann")) == ["5: One.", ": Two."]
    answers: list[dict[str, Any]] = [{"text": "One.", "stars": 5}, {"text": "Two.", "stars": None}]
    assert parquet.read_table(out).to_pylist() == [{**row, "answer": "Hello there"} for row in answers]
    data.write_bytes(b"PAR1 and no more")
    done = await run(*call)
    assert done.returncode == 2
    assert "is no Parquet file" in done.stderr


async def test_what_failed_is_told_and_asked_again_by_the_next_call(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "Good."}\n{"prompt": "Bad."}'), tmp_path / "out.jsonl"
    refusal = Script(refuse=(400, {"error": {"message": "too odd", "code": 400}}))
    fake_engines.let("ann", lambda body: refusal if "Bad" in last_message(body) else Script())
    done = await run(data, "-o", out, "--server", server, "--model", "ann")
    assert done.returncode == 1
    assert "1 rows failed" in done.stderr
    assert "too odd" in by_id(out)["2"]["error"]
    fake_engines.let("ann", Script())
    done = await run(data, "-o", out, "--server", server, "--model", "ann")
    assert done.returncode == 0
    assert asked(fake_engines, "ann").count("Good.") == 1
    assert {each["answer"] for each in by_id(out).values()} == {"Hello there"}


async def test_a_call_that_was_stopped_is_taken_up_by_the_next_one_without_asking_anew(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "Slow."}'), tmp_path / "out.jsonl"
    fake_engines.let("ann", Script(("Slowly",), ending="held"))
    call = (data, "-o", out, "--server", server, "--model", "ann")
    stopped = await asyncio.to_thread(begin, *call)
    assert await eventually(lambda: bool(fake_engines.servers["ann"].bodies))
    await asyncio.to_thread(stopped.kill)
    assert lines(out) == []
    fake_engines.servers["ann"].released.set()
    done = await run(*call)
    assert done.returncode == 0, done.stderr
    assert by_id(out)["1"]["answer"] == "Slowly"
    assert asked(fake_engines, "ann") == ["Slow."]


async def test_a_schema_forms_each_answer(server: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form, data = file(tmp_path, "form.json", json.dumps(schema)), file(tmp_path, "in.jsonl", '{"prompt": "Where?"}')
    fake_engines.let("ann", Script(('{"city": "Rom"}',)))
    out = tmp_path / "out.jsonl"
    done = await run(data, "-o", out, "--server", server, "--model", "ann", "--schema", form)
    assert done.returncode == 0, done.stderr
    assert json.loads(by_id(out)["1"]["answer"]) == {"city": "Rom"}
    assert "city" in json.dumps(fake_engines.servers["ann"].bodies[0])


async def test_only_the_judge_is_asked_of_answers_that_exist(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data = file(tmp_path, "in.jsonl", '{"prompt": "Which?", "answers": ["red", "blue"]}')
    done = await run(data, "-o", tmp_path / "out.jsonl", "--server", server, "--judge-only")
    assert done.returncode == 0, done.stderr
    assert not fake_engines.servers["ann"].bodies
    assert "blue" in json.dumps(fake_engines.servers["judge"].bodies[-1])


@pytest.mark.parametrize(
    ("name", "text", "options", "says"),
    [
        ("in.jsonl", "{", (), "in.jsonl:1: is no JSON object"),
        ("in.jsonl", '{"text": "x"}', (), 'Say what is asked: --prompt "Summarise: {text}"'),
        ("in.jsonl", '{"prompt": "x", "promt": "y"}', (), "unknown key 'promt'"),
        ("in.jsonl", '{"text": "x"}', ("--prompt", "Of {txt}"), "names {txt}"),
        ("in.jsonl", '{"id": 1, "prompt": "x"}\n{"id": 1, "prompt": "y"}', (), "has the id '1' twice"),
        ("in.jsonl", "", (), "has no rows"),
        ("in.csv", "a,b\n1\n", ("--prompt", "{a}"), "in.csv:2: has not as many cells"),
        ("in.csv", 'a\n"x', ("--prompt", "{a}"), "is no CSV"),
        ("in.jsonl", '{"prompt": "x"}', ("--judge-only",), "has no list of answers"),
        ("in.jsonl", '{"prompt": "x"}', ("--body", "{"), "--body: is no JSON"),
        ("in.jsonl", '{"url": "/v1/chat/completions", "body": {}}', ("--prompt", "x"), "is a whole request"),
    ],
)
async def test_a_mistake_is_told_with_its_place_before_anything_is_asked(
    server: str, tmp_path: Path, name: str, text: str, options: tuple[str, ...], says: str
) -> None:
    done = await run(file(tmp_path, name, text), "-o", tmp_path / "out.jsonl", "--server", server, *options)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert await kept_at(server) == 0


async def test_rows_of_the_batch_api_are_taken_as_they_are(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "ann", "prompt": "Once"}}
    done = await run(file(tmp_path, "in.jsonl", json.dumps(row)), "-o", tmp_path / "out.jsonl", "--server", server)
    assert done.returncode == 0, done.stderr
    assert by_id(tmp_path / "out.jsonl")["a"]["answer"]


async def test_a_server_without_batches_says_how_to_turn_them_on(gateway: str, tmp_path: Path) -> None:
    data = file(tmp_path, "in.jsonl", '{"prompt": "x"}')
    done = await run(data, "-o", tmp_path / "out.jsonl", "--server", gateway)
    assert done.returncode == 1
    assert "server.batch" in done.stderr


async def test_what_runs_can_be_cancelled(server: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "Endless."}'), tmp_path / "out.jsonl"
    fake_engines.let("ann", Script(("And so",), ending="held"))
    call = asyncio.create_task(run(data, "-o", out, "--server", server, "--model", "ann"))
    assert await eventually(lambda: bool(fake_engines.servers["ann"].bodies))
    cancelled = await run(data, "-o", out, "--server", server, "--model", "ann", "--cancel")
    assert cancelled.stdout.strip() == "Cancelled: 1"
    done = await call
    assert done.returncode == 1
    assert "cancelled" in done.stderr


async def test_a_second_call_at_the_same_time_is_told_and_changes_nothing(
    server: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "Slow."}'), tmp_path / "out.jsonl"
    fake_engines.let("ann", Script(("Slowly",), ending="held"))
    call = (data, "-o", out, "--server", server, "--model", "ann")
    first = asyncio.create_task(run(*call))
    assert await eventually(lambda: bool(fake_engines.servers["ann"].bodies))
    second = await run(*call)
    assert second.returncode == 2
    assert "is written by another call" in second.stderr
    fake_engines.servers["ann"].released.set()
    assert (await first).returncode == 0
    assert by_id(out)["1"]["answer"] == "Slowly"


async def test_a_call_killed_after_its_files_were_deleted_is_taken_up(server: str, tmp_path: Path) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "First?"}'), tmp_path / "out.jsonl"
    note, call = tmp_path / "out.jsonl.running", (data, "-o", out, "--server", server)
    note.write_text(json.dumps({"cappella_batch": "m1", "server": server}))
    async with aiohttp.ClientSession(base_url=server) as http:
        form = aiohttp.FormData({"purpose": "batch"})
        row = {"custom_id": "k", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
        form.add_field("file", json.dumps(row).encode(), filename="rows.jsonl")
        uploaded = await (await http.post("/v1/files", data=form)).json()
        wanted = {"input_file_id": uploaded["id"], "endpoint": row["url"], "completion_window": "24h"}
        made = await (await http.post("/v1/batches", json={**wanted, "metadata": {"cappella_batch": "m1"}})).json()
        found = await completed(http, made["id"])
        await http.delete(f"/v1/files/{found['output_file_id']}")
    done = await run(*call)
    assert done.returncode == 0, done.stderr
    assert by_id(out)["1"]["answer"] == "The final answer"
    assert not note.exists()


async def test_rows_at_another_server_are_not_asked_twice(server: str, tmp_path: Path) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "First?"}'), tmp_path / "out.jsonl"
    note = json.dumps({"cappella_batch": "m1", "server": "http://127.0.0.1:9"})
    file(tmp_path, "out.jsonl.running", note)
    done = await run(data, "-o", out, "--server", server)
    assert done.returncode == 2
    assert "are at http://127.0.0.1:9" in " ".join(done.stderr.split())
    assert await kept_at(server) == 0


@pytest.mark.parametrize("text", ['{"mine": 1}', '{"mine": 1}\n', "notes", "notes\n"])
async def test_a_file_of_something_else_stays_as_it_is(server: str, tmp_path: Path, text: str) -> None:
    data, out = file(tmp_path, "in.jsonl", '{"prompt": "First?"}'), file(tmp_path, "mine.json", text)
    done = await run(data, "-o", out, "--server", server)
    assert done.returncode == 2
    assert out.read_text() == text
