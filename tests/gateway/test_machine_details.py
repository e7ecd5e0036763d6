"""What an operator looks up: one engine's facts, failures and log, the last hour's figures, and the last calls."""

from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import TypeAdapter

from cappella.auth.keys import KeyStore
from cappella.background import background
from cappella.engines.status import MAX_FAILURES, Failure
from cappella.gateway import openapi
from cappella.telemetry import engine_metrics, figures_history
from cappella.telemetry.recent_calls import MAX_CALLS
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Script

USER = [{"role": "user", "content": "a secret question"}]
DETAILS = ("/api/engines/ann", "/api/figures", "/api/calls")
Json = dict[str, Any]


async def get(url: str, path: str, key: str = "", status: int = 200) -> Json:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession() as http, http.get(url + path, headers=headers) as reply:
        body: Json = await reply.json()
        assert reply.status == status, body
        return body


async def post(url: str, body: Json, key: str = "", path: str = "/v1/chat/completions") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body, headers=headers) as reply:
        await reply.read()
        return reply.status


async def test_an_engine_is_told_with_its_facts_its_failures_and_the_end_of_its_log(
    gateway: str, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    log = tmp_path / "ann.log"
    log.write_text("\n".join(f"line {number}" for number in range(500)))
    fake_engines.logs["ann"] = log
    for number in range(MAX_FAILURES + 5):
        fake_engines.engines["ann"].status.failures.append(Failure(float(number), f"cause {number}", None))
    told = await get(gateway, "/api/engines/ann")
    assert (told["engine"], told["facts"]["weights"], told["facts"]["max_model_len"]) == ("ann", "unused", 64)
    assert [each["reason"] for each in told["failures"]] == [f"cause {n}" for n in range(MAX_FAILURES + 4, 4, -1)]
    assert told["log"] == {"file": str(log), "lines": [f"line {number}" for number in range(300, 500)]}


async def test_a_log_that_is_gone_has_no_lines(gateway: str, fake_engines: FakeEngines, tmp_path: Path) -> None:
    fake_engines.logs["ann"] = tmp_path / "gone.log"
    assert (await get(gateway, "/api/engines/ann"))["log"] == {"file": str(tmp_path / "gone.log"), "lines": []}


async def test_an_unknown_engine_is_404_with_those_there_are(gateway: str) -> None:
    error = (await get(gateway, "/api/engines/nobody", status=404))["error"]
    assert error["code"] == "engine_not_found"
    assert "ann" in error["message"]


async def test_the_figures_of_a_while_are_told_as_one_list_each(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_history, "SAMPLE_INTERVAL_S", 0.02)
    monkeypatch.setattr(engine_metrics, "FIGURES_MAX_AGE_S", 0.0)
    tokens = iter(range(10_000))

    def figures() -> str:
        labels = '{engine="0",model_name="ann"}'
        return "".join(
            f"# TYPE vllm:{name} gauge\nvllm:{name}{labels} {value}\n"
            for name, value in (("kv_cache_usage_perc", 0.25), ("generation_tokens_total", next(tokens)))
        )

    async with serving(fake_engines, gateway_config()) as url:
        found: Json = {"times": []}
        for _ in range(1000):
            if len(found["times"]) >= 3:
                break
            fake_engines.servers["ann"].page, fake_engines.servers["ann"].page_status = figures(), 200
            found = await get(url, "/api/figures")
    TypeAdapter(openapi.REPLIES["FiguresOverTime"]).validate_python(found, strict=True)
    lengths = {len(found[name]) for name in ("times", "waiting", "in_flight")}
    lengths |= {len(each) for name in ("tokens_per_s", "kv_usage", "used_bytes") for each in found[name].values()}
    assert lengths == {len(found["times"])}
    assert found["kv_usage"]["ann"][-1] == 0.25
    assert any(rate for rate in found["tokens_per_s"]["ann"])
    assert found["tokens_per_s"]["bob"] == [None] * len(found["times"])
    assert 0 < found["used_bytes"]["memory"][-1] < found["total_bytes"]["memory"]


async def test_an_engine_that_was_restarted_has_no_rate_between_its_two_processes() -> None:
    totals = iter([100.0, 150.0, 20.0, 50.0, None])

    async def read() -> engine_metrics.Reading:
        told = next(totals)
        figures = engine_metrics.Figures(generation_tokens={} if told is None else {"ann": told})
        return engine_metrics.Reading(figures={"ann": figures})

    history = figures_history.FiguresHistory(read, lambda: (1, 2))
    for _ in range(5):
        await history.sample()
    told = history.over_time()
    rates = told["tokens_per_s"]["ann"]
    assert [rate is not None and rate > 0 for rate in rates] == [True, False, True, False]
    assert (told["waiting"], told["in_flight"]) == ([1] * 4, [2] * 4)


async def test_the_last_calls_are_told_newest_first_with_key_and_status_and_nothing_that_was_asked(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    file = tmp_path / "keys.sqlite"
    whole = gateway_config()
    config = whole.model_copy(
        update={"server": whole.server.model_validate({**whole.server.model_dump(), "keys": file})}
    )
    user_secret, admin = KeyStore(file).create("user", ["run"]), KeyStore(file).create("admin", ["admin"])
    fake_engines.let("bob", Script(("Hi",)))
    async with serving(fake_engines, config) as url:
        assert await post(url, {"model": "cappella/default", "messages": USER}, user_secret) == 200
        assert await post(url, {"model": "bob", "messages": USER}, user_secret) == 200
        assert await post(url, {"model": "nobody", "messages": USER}, user_secret) == 404
        assert await post(url, {"model": "bob", "messages": USER}, "wrong") == 401
        for path in DETAILS:
            assert (await get(url, path, user_secret, 403))["error"]["code"] == "scope_missing"
        calls = (await get(url, "/api/calls", admin))["data"]
        assert await get(url, "/api/calls?limit=1", admin) == {"object": "list", "data": calls[:1]}
        await get(url, f"/api/calls?limit={MAX_CALLS + 1}", admin, 400)
        engine = await get(url, "/api/engines/ann", admin)
    TypeAdapter(openapi.REPLIES["EngineRecord"]).validate_python(engine, strict=True)
    TypeAdapter(openapi.REPLIES["Calls"]).validate_python({"object": "list", "data": calls}, strict=True)
    user_id = calls[2]["key"]
    assert user_id in user_secret
    assert [(each["model"], each["status_code"], each["key"]) for each in calls] == [
        (None, 401, None),
        (None, 404, user_id),
        ("bob", 200, user_id),
        ("cappella/default", 200, user_id),
    ]
    run, call = calls[3], calls[2]
    assert (run["status"], call["status"], call["run_id"]) == ("ok", "ok", None)
    assert run["run_id"]
    assert run["completion_tokens"] > call["completion_tokens"]
    assert "secret" not in str(calls)


async def test_a_call_that_broke_off_is_told_as_cancelled(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("Hi",), ending="hang"))
    async with aiohttp.ClientSession() as http:
        body = {"model": "bob", "messages": USER, "stream": True}
        reply = await http.post(f"{gateway}/v1/chat/completions", json=body)
        await reply.content.readany()
        reply.close()
    told: list[Json] = []
    for _ in range(1000):
        if told := (await get(gateway, "/api/calls"))["data"]:
            break
    assert [(each["model"], each["status"]) for each in told] == [("bob", "cancelled")]


async def test_a_driver_that_fails_is_logged_once_and_leaves_a_gap(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(figures_history, "SAMPLE_INTERVAL_S", 0.0)
    tries = count()

    async def read() -> engine_metrics.Reading:
        if next(tries) in (1, 2):
            raise OSError("the driver is gone")
        return engine_metrics.Reading()

    history = figures_history.FiguresHistory(read, lambda: (0, 0))
    async with background(history.sample_forever()):
        assert await eventually(lambda: len(history.over_time()["times"]) >= 3)
    assert [each.message for each in caplog.records] == [
        "the last hour's figures have a gap: OSError: the driver is gone"
    ]
