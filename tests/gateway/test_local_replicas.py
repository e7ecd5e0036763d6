"""A model with `replicas`: as many engine processes, each with its own place and log, called as one model."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config import load
from cappella.errors import ConfigError, ReloadFailed
from support.fake_engines import eventually
from support.scripted_stack import Json, Stack, model, stack
from support.weights_folder import write_safetensors


def two_anns(**more: Any) -> dict[str, Json]:
    return {"ann": model(replicas=2, **more), "bob": model()}


def states(found: Stack) -> list[str]:
    return [status.state for status in found.supervisor.deployment.replica_statuses.values()]


async def all_ready(found: Stack) -> bool:
    return await eventually(lambda: states(found) == ["ready", "ready"], 30)


async def machine_of(found: Stack) -> Json:
    async with aiohttp.ClientSession() as http, http.get(f"{found.url}/api/machine") as reply:
        return dict(await reply.json())


async def reloaded_when_possible(found: Stack) -> Json:
    """A reload, once the engines that the last one removed have ended."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await found.reload()
            except ReloadFailed:
                await asyncio.sleep(0.02)


async def test_each_replica_is_a_process_with_its_own_place_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        assert list(found.supervisor.plan.placed) == ["ann-1", "ann-2", "bob"]
        assert len(set(found.engine_processes.values())) == 3
        assert {f"{name}.log" for name in ("ann-1", "ann-2", "bob")} <= {path.name for path in tmp_path.glob("logs/*")}
        for _ in range(4):
            status, reply = await found.ask("ann")
            assert (status, reply["choices"][0]["message"]["content"]) == (200, "ann of 8 speaks")
        machine = await machine_of(found)
        ann, bob = machine["engines"]["ann"], machine["engines"]["bob"]
        assert [(each["name"], each["actions"]) for each in ann["replicas"]] == [
            ("ann-1", ["restart", "sleep"]),
            ("ann-2", ["restart", "sleep"]),
        ]
        assert (ann["actions"], bob["replicas"]) == ([], [])
        assert [(each["progress"], each["remaining_s"]) for each in ann["replicas"]] == [(1.0, None)] * 2
        assert ann["planned"]["kv_cache_bytes"] == 2 * bob["planned"]["kv_cache_bytes"]
        assert machine["memory"][0]["engines"].keys() == {"ann", "bob"}


async def test_runs_lose_nothing_when_a_replica_is_killed_and_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        first = found.engine_processes["ann-1"]
        assert first
        os.killpg(first, signal.SIGKILL)
        replies = await asyncio.gather(*(found.ask("ann") for _ in range(10)))
        assert {status for status, _ in replies} == {200}
        assert (await found.ask())[1]["fusion"]["status"] == "ok"
        restarted = found.supervisor.deployment.replica_statuses["ann-1"]
        assert await eventually(lambda: restarted.restarts == 1 and restarted.state == "ready", 30)
        failure = found.supervisor.statuses["ann"].last_failure
        assert failure is not None
        assert failure.reason.startswith("ann-1: ")


async def test_an_operator_puts_one_replica_to_sleep_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{found.url}/api/engines/ann-2/sleep") as reply:
                assert reply.status == 202
            async with http.post(f"{found.url}/api/engines/ann/sleep") as reply:
                assert reply.status == 404
                assert "ann-1, ann-2" in (await reply.json())["error"]["message"]
            assert await eventually(lambda: states(found) == ["ready", "stopped"])
            assert (await found.ask("ann"))[0] == 200
            async with http.get(f"{found.url}/api/engines/ann-2") as reply:
                record = await reply.json()
        assert (record["engine"], record["facts"]["max_num_seqs"]) == ("ann-2", 8)
        assert record["log"]["file"].endswith("ann-2.log")


async def test_an_action_that_a_replicas_state_does_not_allow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        async with aiohttp.ClientSession() as http, http.post(f"{found.url}/api/engines/ann-1/start") as reply:
            assert reply.status == 409
            assert "ann-1" in (await reply.json())["error"]["message"]


async def test_a_reload_keeps_replicas_and_changes_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        before = found.engine_processes
        found.config["models"]["bob"] = model(max_num_seqs=9)
        assert (await found.reload())["kept"] == ["ann"]
        assert [found.engine_processes[name] for name in ("ann-1", "ann-2")] == [before["ann-1"], before["ann-2"]]
        assert list(found.supervisor.plan.placed) == ["ann-1", "ann-2", "bob"]
        found.config["models"]["ann"] = model()
        assert (await reloaded_when_possible(found))["started"] == ["ann"]
        assert list(found.supervisor.plan.placed) == ["ann", "bob"]
        assert (await found.ask())[1]["fusion"]["status"] == "ok"
        assert await eventually(lambda: not Path(f"/proc/{before['ann-2']}").exists(), 30)


async def test_a_reload_serves_more_replicas_once_all_of_them_have_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        found.config["models"]["ann"] = model(replicas=3)
        assert (await found.reload())["started"] == ["ann"]
        assert states(found) == ["ready"] * 3


async def test_a_reload_starts_a_failed_replica_anew_and_leaves_the_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns()) as found:
        assert await all_ready(found)
        first, second = (found.engine_processes[name] for name in ("ann-1", "ann-2"))
        crash = tmp_path / "modules" / "crash"
        crash.touch()
        assert first
        os.killpg(first, signal.SIGKILL)
        assert await eventually(lambda: states(found) == ["failed", "ready"], 30)
        assert (await found.ask("ann"))[0] == 200
        crash.unlink()
        assert (await found.reload())["kept"] == ["ann", "bob"]
        assert await all_ready(found)
        assert found.engine_processes["ann-2"] == second


async def test_sleeping_replicas_wake_one_by_one_for_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack(tmp_path, monkeypatch, models=two_anns(sleep_after_s=3600)) as found:
        assert await all_ready(found)
        for name in ("ann-1", "ann-2"):
            await found.supervisor.lifecycles[name].sleep("idle")
        assert found.supervisor.statuses["ann"].state == "asleep"
        assert (await found.ask("ann"))[0] == 200
        assert sorted(states(found)) == ["asleep", "ready"]
        assert (await found.ask("ann"))[0] == 200
        assert sorted(states(found)) == ["asleep", "ready"]


async def test_an_adapter_has_the_replicas_of_its_model_and_their_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "adapter_config.json").write_text(json.dumps({"r": 8}))
    write_safetensors(tmp_path / "law" / "adapter_model.safetensors", {"x.lora_A.weight": ("BF16", (8, 64))})
    async with stack(tmp_path, monkeypatch, models=two_anns(adapters={"law": "law"})) as found:
        assert await all_ready(found)
        ann, law = found.supervisor.deployment.replicas_of("ann"), found.supervisor.deployment.replicas_of("law")
        assert [each.name for each in law] == ["ann-1", "ann-2"]
        assert all(one.calls is other.calls for one, other in zip(ann, law, strict=True))
        assert (await found.ask("law"))[0] == 200
        async with aiohttp.ClientSession() as http, http.get(f"{found.url}/metrics") as reply:
            page = await reply.text()
        assert page.count("cappella_replica_up{") == 2


@pytest.mark.parametrize(
    ("ann", "more", "says"),
    [
        ({"weights": "w", "replicas": 0}, {}, r"models\.ann\.replicas: .*greater than or equal to 1"),
        ({"weights": "w", "replicas": 65}, {}, r"models\.ann\.replicas: .*less than or equal to 64"),
        ({"weights": "w", "replicas": 2, "gpus": [0]}, {}, r"models\.ann: gpus and replicas exclude"),
        (
            {"url": "http://127.0.0.1:9/v1", "max_model_len": 64, "replicas": 2},
            {},
            r"models\.ann: replicas can be set only for a model with weights",
        ),
        ({"weights": "w", "replicas": 2}, {"placement": {"swap": True}}, r"swap and replicas exclude each other: ann"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, ann: Json, more: Json, says: str) -> None:
    path = tmp_path / "c.yaml"
    ensembles = {"default": {"panel": ["ann", "ann"], "judge": "ann", "analysis": "off"}}
    path.write_text(json.dumps({"models": {"ann": ann}, "ensembles": ensembles, **more}))
    with pytest.raises(ConfigError, match=says):
        load.load(path)
