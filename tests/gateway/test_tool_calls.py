"""Tools of members on the wire: in replies, streams, recorded runs and the audit log."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config import Config
from cappella.ensemble.pipeline import Pipeline
from support.fake_engines import FakeEngines, eventually
from support.recorded_gateway import client, recording_config
from support.scripted_engine import Json, Script
from support.small_tools import adding

CALLS = Script((), calls=(("add", '{"q": "2+3"}'), ("made_up_4711", "{}")), finish_reason="tool_calls")
MESSAGES = [{"role": "user", "content": "2+3?"}]


def config(tmp_path: Path, *others: str, **runs: Any) -> Config:
    """Ann may call the tools of box, and of others that are away."""
    panel = [{"model": "ann", "tools": ["box", *others]}, "bob", "cat"]
    found = recording_config(tmp_path, ensemble={"panel": panel}, runs=runs)
    tools = {name: {"builtin": "calculator"} for name in ("box", *others)}
    return Config.model_validate({**dict(found), "tools": tools})


def with_tools(fake_engines: FakeEngines) -> None:
    """Gives the running gateway a server of tools, which ann calls."""
    reloader = fake_engines.reloader
    reloader.state = replace(reloader.state, pipeline=Pipeline(fake_engines.engines, {"box": adding()}))
    fake_engines.let("ann", lambda body: Script(("Five.",)) if has_results(body) else CALLS)


def has_results(body: Json) -> bool:
    return any(message["role"] == "tool" for message in body["messages"])


async def asked(http: aiohttp.ClientSession, **fields: Any) -> Json:
    body = {"model": "cappella/default", "messages": MESSAGES, **fields}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 200, await reply.text()
        found: Json = await reply.json()
        return found


async def test_a_reply_has_the_calls_of_tools_and_each_turn_in_its_usage(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with client(fake_engines, config(tmp_path)) as http:
        with_tools(fake_engines)
        reply = await asked(http)
    unknown, use = sorted(reply["fusion"]["tool_calls"], key=lambda use: use["tool"], reverse=True)
    assert {name: value for name, value in use.items() if not name.endswith("ms")} == {
        "seat": "ann",
        "server": "box",
        "tool": "add",
        "arguments": '{"q": "2+3"}',
        "is_error": False,
        "shared": False,
        "result_chars": 1,
    }
    assert (unknown["server"], unknown["is_error"]) == (None, True)
    calls = reply["usage"]["fusion_details"]
    assert [call["role"] for call in calls if call["model"] == "ann"] == ["lookup", "panel"]


async def test_a_stream_tells_each_call_and_its_end(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, config(tmp_path)) as http:
        with_tools(fake_engines)
        body = {"model": "cappella/default", "messages": MESSAGES, "stream": True, "fusion": {"include_events": True}}
        async with http.post("/v1/chat/completions", json=body) as reply:
            lines = (await reply.text()).splitlines()
    events = [json.loads(line[6:])["fusion_event"] for line in lines if '"fusion_event"' in line]
    tools = [event for event in events if event["type"].startswith("tool.")]
    # A call that cannot be made is told as well.
    assert sorted(event["type"] for event in tools if event["server"] is None) == ["tool.called", "tool.returned"]
    told = {event["type"]: event for event in tools if event["server"]}
    assert (told["tool.called"]["model"], told["tool.called"]["arguments"]) == ("ann", '{"q": "2+3"}')
    assert (told["tool.returned"]["server"], told["tool.returned"]["is_error"]) == ("box", False)


async def test_progress_tells_that_a_tool_was_called(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, config(tmp_path)) as http:
        with_tools(fake_engines)
        reply = await asked(http, fusion={"progress": "reasoning"})
    message = json.dumps(reply["choices"][0]["message"])
    assert "**ann** called add." in message
    assert "**ann** asked for a call that cannot be made." in message
    # A name that a model made up is no part of a text of ours.
    assert "made_up_4711" not in message


@pytest.mark.parametrize("content", [True, False])
async def test_stored_runs_and_the_audit_log_have_counts_and_content_only_where_it_is_kept(
    fake_engines: FakeEngines, tmp_path: Path, content: bool
) -> None:
    async with client(fake_engines, config(tmp_path, content=content)) as http:
        with_tools(fake_engines)
        run_id = (await asked(http))["fusion"]["run_id"]
        async with http.get(f"/api/runs/{run_id}") as reply:
            stored = await reply.json()
    uses = stored["fusion"]["tool_calls"]
    assert sorted(use["server"] or "" for use in uses) == ["", "box"]
    assert ("2+3" in json.dumps(uses)) is content
    assert ("made_up_4711" in json.dumps(uses)) is content
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (run,) = [line for line in lines if line.get("kind") == "run"]
    assert run["tool_calls"] == {"box/add": 1, "unknown": 1}
    assert "2+3" not in json.dumps(run)


async def line_of_failed_run(http: aiohttp.ClientSession, tmp_path: Path) -> tuple[Json, Json]:
    """What is stored, and logged, of the only run."""
    async with http.get("/api/runs") as reply:
        (summary,) = (await reply.json())["data"]
    async with http.get(f"/api/runs/{summary['id']}") as reply:
        stored = await reply.json()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (run,) = [line for line in lines if line.get("kind") == "run"]
    return stored, run


async def test_a_run_that_fails_has_its_calls_of_tools_in_its_trace_and_in_the_audit_log(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    called = asyncio.Semaphore(0)
    fake_engines.let("cat", Script(("so",), pace=called, ending="break"))

    def breaks(body: Json) -> Script:
        if has_results(body):
            called.release()
        return Script(("so",), ending="break") if has_results(body) else CALLS

    async with client(fake_engines, config(tmp_path, content=True)) as http:
        with_tools(fake_engines)
        fake_engines.let("ann", breaks)
        async with http.post("/v1/chat/completions", json={"model": "cappella/default", "messages": MESSAGES}) as reply:
            assert reply.status >= 500
        stored, run = await line_of_failed_run(http, tmp_path)
    assert stored["status"] == "failed"
    assert sorted((use["seat"], use["server"] or "") for use in stored["fusion"]["tool_calls"]) == [
        ("ann", ""),
        ("ann", "box"),
    ]
    assert all(use["start_ms"] >= 0 for use in stored["fusion"]["tool_calls"])
    assert run["tool_calls"] == {"box/add": 1, "unknown": 1}


async def test_a_cancelled_run_has_the_calls_of_tools_that_were_given_up_and_the_tools_that_were_away(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    box = adding()
    box.holds = True
    async with client(fake_engines, config(tmp_path, "away", content=False)) as http:
        reloader = fake_engines.reloader
        reloader.state = replace(reloader.state, pipeline=Pipeline(fake_engines.engines, {"box": box}))
        fake_engines.let("ann", CALLS)
        asking = asyncio.create_task(asked(http))
        assert await eventually(lambda: bool(box.asked))
        asking.cancel()
        await asyncio.wait({asking})
        log = tmp_path / "audit.jsonl"
        assert await eventually(lambda: '"kind":"run"' in log.read_text().replace(" ", ""))
        stored, run = await line_of_failed_run(http, tmp_path)
    assert stored["status"] == "cancelled"
    assert stored["fusion"]["missing_tools"] == {"away": "unavailable"}
    assert run["tool_calls"] == {"box/add": 1, "unknown": 1}
    assert "arguments" not in stored["fusion"]["tool_calls"][0]
