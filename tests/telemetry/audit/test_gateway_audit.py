"""Audit lines of runs and calls, however they end; content only with `log_content`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cappella.auth.keys import KeyStore
from cappella.telemetry.audit.verify import verify
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.recorded_gateway import SECRET, ask, client, recording_config
from support.scripted_engine import Script

ANSWER = "Kingfisher-0815"
RUNS = 300


def lines(tmp_path: Path, *kinds: str) -> list[Mapping[str, Any]]:
    records = [orjson.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    return [record for record in records if record["kind"] in (kinds or ("run", "call"))]


def all_bytes(tmp_path: Path) -> bytes:
    """The bytes of all files: the log, the database and its write-ahead log."""
    return b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


async def test_a_run_writes_one_line_with_key_models_tokens_and_status(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"])
    async with client(fake_engines, recording_config(tmp_path, keys=tmp_path / "keys.sqlite"), key) as http:
        _, body = await ask(http)
    (line,) = lines(tmp_path)
    reply = orjson.loads(body)
    cost = reply["fusion"]["usage"]
    assert line["key"] == key.split("_")[1]
    assert (line["model"], line["panel"], line["judge"]) == ("cappella/default", list(MEMBERS), "judge")
    assert line["run_id"] == reply["fusion"]["run_id"]
    assert line["timings"] == reply["fusion"]["timings"]
    assert line["tokens"] == {
        "prompt": cost["prompt_tokens"], "completion": cost["completion_tokens"], "cached": 20
    }  # fmt: skip
    assert (line["status"], line["failure_reason"]) == ("ok", None)
    assert set(line["weights"]) == {*MEMBERS, "judge"}
    assert "content" not in line


async def test_a_model_with_the_panel_as_its_tool_is_recorded_as_a_run_of_its_ensemble(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        tool: Any = {"tools": [{"type": "openrouter:fusion"}], "tool_choice": "required"}
        reply = orjson.loads((await ask(http, "ann", **tool))[1])
        async with http.get("/api/runs") as runs:
            (listed,) = (await runs.json())["data"]
        async with http.get(f"/api/runs/{listed['id']}") as run:
            stored = await run.json()
    (line,) = lines(tmp_path)
    assert (line["kind"], line["model"], line["judge"], line["panel"]) == (
        "run",
        "cappella/default",
        "ann",
        list(MEMBERS),
    )
    assert (reply["model"], reply["fusion"]["ensemble"]) == ("ann", "default")
    assert (listed["model"], stored["fusion"]["ensemble"]) == ("cappella/default", "default")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_a_single_model_writes_a_line(fake_engines: FakeEngines, tmp_path: Path, stream: bool) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        assert (await ask(http, "ann", stream=stream))[0] == 200
    (line,) = lines(tmp_path)
    assert (line["kind"], line["model"], line["key"], line["status"]) == ("call", "ann", None, "ok")
    assert line["tokens"] == {"prompt": 10, "completion": 2, "cached": 4 if stream else 0}
    assert set(line["weights"]) == {"ann"}


async def test_lines_of_failed_runs_have_status_and_reasons(fake_engines: FakeEngines, tmp_path: Path) -> None:
    down = Script(refuse=(500, {"error": {"message": "down", "code": 500}}))
    async with client(fake_engines, recording_config(tmp_path)) as http:
        fake_engines.let("cat", down)
        assert (await ask(http))[0] == 200
        fake_engines.let("bob", down)
        assert (await ask(http))[0] == 502
        assert (await ask(http, stream=True))[0] == 502
        assert (await ask(http, "bob"))[0] == 502
        fake_engines.let("bob", Script(refuse=(400, {"error": {"message": "too long", "code": 400}})))
        assert (await ask(http, "bob"))[0] == 400
        fake_engines.engines["bob"].status.state = "failed"
        assert (await ask(http, "bob"))[0] == 503
    degraded, failed, streamed, *calls = lines(tmp_path)
    assert (degraded["status"], degraded["failure_reason"]) == ("degraded", None)
    for line in (failed, streamed):
        assert line["status"] == "InsufficientQuorum"
        assert line["failure_reason"].items() >= {"bob": "engine_broke", "cat": "engine_broke"}.items()
        assert line["run_id"].startswith("run-")
    assert [call["status"] for call in calls] == ["EngineBroke", "HTTP 400", "EngineNotReady"]


async def test_the_line_of_a_failed_run_has_its_tokens(fake_engines: FakeEngines, tmp_path: Path) -> None:
    for name in ("bob", "cat"):
        fake_engines.let(name, Script(ending="hang"))
    async with client(fake_engines, recording_config(tmp_path)) as http:
        assert (await ask(http, fusion={"deadline_seconds": 0.3}))[0] == 504
    (line,) = lines(tmp_path)
    assert (line["status"], line["failure_reason"]) == ("DeadlineExceeded", {"bob": "deadline", "cat": "deadline"})
    # Interrupted calls count with an estimate: 13 tokens of a prompt, 2 of an answer.
    assert line["tokens"] == {"prompt": 10 + 13 + 13, "cached": 4, "completion": 6 + 2 + 2}
    assert line["timings"]["total_ms"] > 0


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnected_client_writes_a_line(
    fake_engines: FakeEngines, tmp_path: Path, model: str, stream: bool
) -> None:
    fake_engines.let("ann", Script(pause_s=3600))
    async with client(fake_engines, recording_config(tmp_path)) as http:
        asking = asyncio.create_task(ask(http, model, stream=stream))
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1)
        asking.cancel()
        assert await eventually(lambda: fake_engines.running == 0)
    (line,) = lines(tmp_path)
    assert line["status"] == "cancelled"


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_drain_cancels_was_not_cancelled_by_its_client(
    fake_engines: FakeEngines, tmp_path: Path, model: str, stream: bool
) -> None:
    fake_engines.let("ann", Script(("word ",), ending="hang") if stream else Script(pause_s=3600))
    async with client(fake_engines, recording_config(tmp_path)) as http:
        asking = asyncio.create_task(ask(http, model, stream=stream))
        assert await eventually(lambda: fake_engines.running > 0 and fake_engines.reloader.in_flight == 1)
        assert await fake_engines.reloader.drain(0) == 1
        assert b"shutting_down" in (await asking)[1]
    (line,) = lines(tmp_path)
    assert line["status"] == "ShuttingDown"


async def test_a_request_rejected_before_any_engine_call_writes_none(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, recording_config(tmp_path, keys=tmp_path / "keys.sqlite")) as http:
        assert (await ask(http))[0] == 401
    assert lines(tmp_path) == []


async def test_by_default_no_content_reaches_the_disk(fake_engines: FakeEngines, tmp_path: Path) -> None:
    """No prompt, answer or part of one, from an analysis, an engine's error message or a gate's reason."""
    answering = Script((f"{ANSWER} said", " more"))
    refusing = Script(refuse=(400, {"error": {"message": f"cannot take {SECRET} {ANSWER}", "code": 400}}))
    for name in (*MEMBERS, "judge"):
        fake_engines.let(name, answering)
    config = recording_config(tmp_path, ensemble={"gate": {"mode": "judge", "model": "ann", "max_words": 4}})
    async with client(fake_engines, config) as http:
        for fields in ({}, {"stream": True}, {"fusion": {"strategy": "vote", "gate": "judge"}}):
            assert (await ask(http, **fields))[0] == 200
        assert (await ask(http, path="/v1/messages", max_tokens=9))[0] == 200
        fake_engines.let("cat", refusing)
        fake_engines.let("judge", refusing)
        assert (await ask(http, fusion={"gate": "judge"}))[0] == 200
        fake_engines.let("bob", Script((ANSWER,), ending="garbage"))
        # Whether the third member has answered by now decides whose fault it was.
        assert (await ask(http))[0] in (200, 400, 502)
        fake_engines.let("ann", refusing)
        assert (await ask(http))[0] == 400
        for stream in (False, True):
            await ask(http, "cat", stream=stream)
        before_the_end = all_bytes(tmp_path)
    assert len(lines(tmp_path)) == 9
    for data in (before_the_end, all_bytes(tmp_path)):
        assert b"run-" in data
        for text in (SECRET, ANSWER, ANSWER[:5]):
            assert text.encode() not in data


async def test_configured_content_is_logged_redacted(fake_engines: FakeEngines, tmp_path: Path) -> None:
    fake_engines.let("judge", lambda body: Script(("My number is 12", "34-5 and ", ANSWER)))
    fake_engines.let("ann", Script(("Call 12", "34-5", " now")))
    config = recording_config(tmp_path, audit={"log_content": True, "redact": [r"\d{4}-\d", "(?i)zebrafinch"]})
    more: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": f"I am {SECRET} of 1234-5"}]}]
    }
    async with client(fake_engines, config) as http:
        await ask(http, fusion={"analysis": "off"}, **more)
        await ask(http, "ann", stream=True, **more)
        await ask(http, "ann", **more)
    run, stream, call = (line["content"] for line in lines(tmp_path))
    for content in (run, stream, call):
        assert content["messages"][0]["content"][0]["text"] == "I am [redacted]-4711 of [redacted]"
    assert run["answer"]["content"] == f"My number is [redacted] and {ANSWER}"
    assert stream["answer"] == ["Call [redacted] now"]
    assert call["answer"][0]["message"]["content"] == "Call [redacted] now"
    assert b"1234-5" not in (tmp_path / "audit.jsonl").read_bytes()
    verify([tmp_path / "audit.jsonl"])


async def test_concurrent_runs_write_a_line_each_in_one_chain(fake_engines: FakeEngines, tmp_path: Path) -> None:
    slots = asyncio.Semaphore(32)

    async def one(http: aiohttp.ClientSession) -> str:
        async with slots:
            status, body = await ask(http)
        assert status == 200
        return str(orjson.loads(body)["fusion"]["run_id"])

    async with client(
        fake_engines, recording_config(tmp_path, ensemble={"panel": ["ann"], "strategy": "vote"})
    ) as http:
        answered = await asyncio.gather(*(one(http) for _ in range(RUNS)))
        async with http.get(f"/api/runs?limit={RUNS}") as reply:
            listed = [run["id"] for run in (await reply.json())["data"]]
    logged = [line["run_id"] for line in lines(tmp_path)]
    assert sorted(logged) == sorted(answered) == sorted(listed)
    assert listed == logged[::-1]  # both in the order in which they ended
    assert verify([tmp_path / "audit.jsonl"]).lines == RUNS + 1
