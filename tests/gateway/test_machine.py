"""The machine at one look: who sees how much of it, and what it costs the engines."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config
from cappella.engines.status import Failure
from cappella.telemetry import engine_metrics
from cappella.telemetry.engine_metrics import Gauges
from cappella.version import __version__
from support.fake_engines import MEMBERS, FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Script

BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
Json = dict[str, Any]


async def look(url: str, key: str = "", path: str = "/api/machine") -> Json:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession() as http, http.get(url + path, headers=headers) as reply:
        assert reply.status in (200, 503), await reply.text()
        found: Json = await reply.json()
        return found


def with_keys(file: Path) -> Config:
    whole = gateway_config()
    return whole.model_copy(update={"server": whole.server.model_validate({**whole.server.model_dump(), "keys": file})})


def page(model: str, **figures: float) -> str:
    labels = f'{{engine="0",model_name="{model}"}}'
    return "".join(f"# TYPE vllm:{name} gauge\nvllm:{name}{labels} {value}\n" for name, value in figures.items())


async def test_without_keys_everybody_sees_the_whole_machine(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["bob"].status.state = "failed"
    fake_engines.servers["ann"].page = page(
        "ann", kv_cache_usage_perc=0.25, num_requests_running=2, num_requests_waiting=1, generation_tokens_total=10
    )
    fake_engines.servers["ann"].page_status = 200
    told = await look(gateway)
    assert (told["version"], told["runs_kept"], told["takes_batches"]) == (__version__, False, False)
    assert told["ensembles"]["default"] == {
        "answers": True,
        "panel": list(MEMBERS),
        "judge": "judge",
        "presets": [],
        "waiting": 0,
        "in_flight": 0,
    }
    ann = told["engines"]["ann"]
    assert (ann["state"], ann["kv_usage"], ann["running"], ann["waiting"]) == ("ready", 0.25, 2, 1)
    assert ann["planned"] == {"weight_bytes": 100, "kv_cache_bytes": 1000, "overhead_bytes": 10}
    assert ann["used_bytes"] > 1 << 20
    assert ann["actions"] == ["restart", "sleep"]
    bob = told["engines"]["bob"]
    assert (bob["state"], bob["kv_usage"], bob["used_bytes"], bob["actions"]) == ("failed", None, None, ["start"])
    (memory,) = told["memory"]
    assert memory["device"] == "memory"
    assert memory["total_bytes"] > memory["free_bytes"] > 0
    assert memory["engines"]["ann"] == 1110


async def test_an_engines_last_failure_is_told_after_it_has_recovered(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["ann"].status.failures.append(
        Failure(1795734313.5, "killed by signal 9 (SIGKILL)", "/logs/ann.log")
    )
    told = {"time": 1795734313.5, "reason": "killed by signal 9 (SIGKILL)", "log": "/logs/ann.log"}
    machine = (await look(gateway))["engines"]
    assert (machine["ann"]["last_failure"], machine["bob"]["last_failure"]) == (told, None)
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/ready") as reply:
        ready = (await reply.json())["engines"]
    assert (ready["ann"]["last_failure"], ready["bob"]["last_failure"]) == (told, None)


async def test_tokens_per_second_are_counted_between_two_readings(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(engine_metrics, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    fake_engines.servers["ann"].page_status = 200
    found, rates = Gauges(lambda: ()), []
    engines = {"ann": fake_engines.engines["ann"]}
    for tokens, after_s in ((50, 2.0), (90, 0.5), (95, 2.0), (3, 2.0), (7, 60.0), (9, 2.0), (9, 2.0)):
        fake_engines.servers["ann"].page = page("ann", generation_tokens_total=tokens)
        rates.append((await found.read(engines, dict, False)).figures["ann"].tokens_per_s)
        clock[0] += after_s
    # Nothing to compare with; 40 in 2 s; not looked at again so soon; a restart; from there; too long ago; nothing new.
    assert rates == [None, 20.0, 20.0, None, 2.0, None, 0.0]


async def test_concurrent_requests_share_one_reading(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "time", SimpleNamespace(monotonic=lambda: 100.0))
    looks = []
    server = fake_engines.servers["ann"]
    server.on_figures = lambda: looks.append(1)
    for _ in range(2):
        await asyncio.gather(*(look(gateway) for _ in range(5)))
    assert len(looks) == 1


async def test_an_engine_that_does_not_answer_is_shown_without_figures(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fake_engines.servers["ann"].stop()
    fake_engines.servers["bob"].page = "<html>Internal Server Error</html>"
    fake_engines.servers["cat"].page, fake_engines.servers["cat"].page_status = (
        'vllm:num_requests_running{a="b"} oops',
        200,
    )
    told = await look(gateway)
    assert [told["engines"][name]["running"] for name in (*MEMBERS, "judge")] == [None, None, None, 0]


async def test_runs_under_way_are_counted_by_ensemble(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="hang"))
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{gateway}/v1/chat/completions", json=BODY))
        assert await eventually(lambda: fake_engines.running > 0)
        told = await look(gateway)
        assert told["ensembles"]["default"]["in_flight"] == told["queue"]["in_flight"]["cappella/default"] == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("path", ["/api/machine", "/ready"])
async def test_a_key_that_may_only_run_sees_states_of_what_it_may_call(
    fake_engines: FakeEngines, tmp_path: Path, path: str
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    narrow = store.create("ann", ["run"], models=["cappella/fixed", "bob"])
    bob = fake_engines.engines["bob"].status
    bob.state, bob.stage, bob.reason = "failed", "gave up: SECRET of another key", "SECRET of another key"
    bob.failures.append(Failure(1.0, "SECRET of another key", "/logs/bob.log"))
    async with serving(fake_engines, with_keys(tmp_path / "keys.sqlite")) as url:
        told = await look(url, narrow, path)
        assert list(told["ensembles"]) == ["fixed"]
        assert told["engines"] == {"bob": {"state": "failed", "stage": "failed", "progress": 0.0, "remaining_s": None}}
        assert not {"memory", "queue"} & set(told)
        assert "SECRET" not in str(told)
        whole = await look(url, store.create("ops", ["admin"]), path)
        assert set(whole["ensembles"]) == {"default", "fixed", "tools"}
        assert whole["engines"]["bob"]["reason"] == "SECRET of another key"


async def test_a_call_to_an_engine_that_is_down_says_its_state_alone(fake_engines: FakeEngines, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    bob = fake_engines.engines["bob"].status
    bob.state, bob.stage = "failed", "gave up: SECRET of another key"
    headers = {"Authorization": f"Bearer {store.create('ann', ['run'])}"}
    async with serving(fake_engines, with_keys(tmp_path / "keys.sqlite")) as url, aiohttp.ClientSession() as http:
        for body in ({**BODY, "model": "bob"}, {**BODY, "fusion": {"analysis_models": ["bob", "ann"]}}):
            async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
                text = await reply.text()
            assert "SECRET" not in text


@pytest.mark.parametrize(("scope", "status"), [("run", 403), ("", 401)])
async def test_actions_on_engines_need_the_admin_scope(
    fake_engines: FakeEngines, tmp_path: Path, scope: Any, status: int
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("ann", [scope]) if scope else "ck_none"
    async with serving(fake_engines, with_keys(tmp_path / "keys.sqlite")) as url, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {key}"}
        async with http.post(f"{url}/api/engines/ann/restart", headers=headers) as reply:
            assert reply.status == status
