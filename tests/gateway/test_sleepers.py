"""Engines that sleep when nobody uses them, behind the gateway: runs, direct calls, readiness, reload and operators."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config import load
from cappella.errors import ConfigError
from support.fake_engines import eventually
from support.scripted_stack import Stack, model, scripted_config, stack

SLEEPY: dict[str, Any] = {"ann": model(sleep_after_s=3600), "bob": model(sleep_after_s=3600)}


async def fall_asleep(found: Stack, *names: str) -> None:
    """As if their time were over."""
    for name in names:
        await found.supervisor.lifecycles[name].sleep("idle")
    assert await eventually(lambda: all(found.engine_processes[name] is None for name in names))


async def get(found: Stack, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(found.url + path) as reply:
        return reply.status, await reply.json()


async def events_of(found: Stack, **fusion: Any) -> list[dict[str, Any]]:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    body["fusion"] = {"include_events": True, **fusion}
    async with aiohttp.ClientSession() as http, http.post(f"{found.url}/v1/chat/completions", json=body) as reply:
        lines = [line[6:] async for line in reply.content if line.startswith(b"data: {")]
    return [json.loads(line)["fusion_event"] for line in lines if b'"fusion_event"' in line]


async def test_sleepers_are_ready_and_a_run_wakes_its_members_and_tells_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
        await fall_asleep(found, "ann", "bob")
        status, ready = await get(found, "/ready")
        assert (status, ready["ready"], ready["engines"]["bob"]["state"]) == (200, True, "asleep")
        # A grace of nothing, and both members are still answered with.
        events = await events_of(found, grace_seconds=0, min_successful_responses=1)
        told = [(each["type"], each["model"]) for each in events if each["type"].startswith("engine.")]
        assert sorted(told) == [
            ("engine.awake", "ann"), ("engine.awake", "bob"), ("engine.waiting", "ann"), ("engine.waiting", "bob")
        ]  # fmt: skip
        assert {each["reason"] for each in events if each["type"] == "engine.waiting"} == {"asleep"}
        engines = (await get(found, "/ready"))[1]["engines"]
        assert [(engines[name]["state"], engines[name]["wakes"]) for name in ("ann", "bob")] == [("ready", 1)] * 2
        assert (await found.ask())[1]["fusion"]["status"] == "ok"


async def test_a_direct_call_wakes_only_its_own_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
        await fall_asleep(found, "ann", "bob")
        status, reply = await found.ask("bob")
        assert (status, reply["choices"][0]["message"]["content"]) == (200, "bob of 8 speaks")
        assert {name: each.state for name, each in found.supervisor.statuses.items()} == {
            "ann": "asleep",
            "bob": "ready",
        }


async def test_a_judge_wakes_for_a_run_and_sleeps_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"ann": model(), "bob": model(), "cat": model(sleep_after_s=0.01)}
    ensembles = {"default": {"panel": ["ann", "bob"], "judge": "cat", "analysis": "off"}}
    async with stack(tmp_path, monkeypatch, models=models, ensembles=ensembles) as found:
        status = found.supervisor.statuses["cat"]
        assert await eventually(lambda: status.state == "asleep")
        assert (await found.ask())[1]["fusion"]["status"] == "ok"
        assert await eventually(lambda: status.wakes == 1)
        assert await eventually(lambda: status.state == "asleep")


async def test_a_wake_that_fails_is_a_503_and_the_run_goes_on_without_the_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
        await fall_asleep(found, "bob")
        (tmp_path / "modules" / "crash").touch()
        status, told = await found.ask("bob")
        assert (status, told["error"]["code"]) == (503, "model_not_ready")
        assert (await found.ask(min_successful_responses=1))[1]["fusion"]["status"] in ("degraded", "single")
        assert await eventually(lambda: found.supervisor.statuses["bob"].state == "failed", 30)


async def test_a_sleeper_is_kept_asleep_by_a_reload_and_answers_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
        await fall_asleep(found, "bob")
        found.config["models"] = {**SLEEPY, "cat": model()}
        assert (await found.reload())["kept"] == ["ann", "bob"]
        assert found.supervisor.statuses["bob"].state == "asleep"
        assert (await found.ask())[1]["fusion"]["status"] == "ok"


async def test_a_sleeper_whose_model_is_changed_by_a_reload_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
        await fall_asleep(found, "bob")
        found.config["models"] = {**SLEEPY, "bob": model(max_num_seqs=4)}
        assert (await found.reload())["started"] == ["bob"]
        assert (await found.ask("bob"))[1]["choices"][0]["message"]["content"] == "bob of 4 speaks"


async def test_the_server_stops_while_calls_wait_for_a_wake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(60):
        async with stack(tmp_path, monkeypatch, models=SLEEPY) as found:
            await fall_asleep(found, "bob")
            waits = asyncio.create_task(found.ask("bob"))
            await eventually(lambda: found.supervisor.lifecycles["bob"].process_group is not None)
        await asyncio.wait({waits})
        assert all(group is None for group in found.engine_processes.values())


def test_a_pinned_model_never_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = {"ann": model(gpus=[0], sleep_after_s=60), "bob": model()}
    path, _ = scripted_config(tmp_path, monkeypatch, models=pinned)
    with pytest.raises(ConfigError, match=r"models\.ann: gpus and sleep_after_s exclude each other"):
        load.load(path)
