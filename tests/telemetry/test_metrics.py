"""Metrics of the gateway and of its engines; an engine with broken metrics is left out."""

from typing import get_args

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cappella.engines.status import EngineState
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, judge_script, serving
from support.scripted_engine import Script

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(url: str) -> Samples:
    """Every sample by name and labels; raises for text that Prometheus would reject."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as reply:
        assert reply.status == 200
        text = await reply.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


async def ask(url: str, model: str = "cappella/default") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return reply.status


async def test_runs_stages_calls_and_tokens_are_counted(gateway: str) -> None:
    for _ in range(2):
        assert await ask(gateway) == 200
    samples = await scrape(gateway)
    assert value(samples, "cappella_runs_total", ensemble="default", status="ok") == 2
    assert value(samples, "cappella_runs_in_flight", ensemble="default") == 0
    for stage in ("panel", "analysis", "first_token", "total"):
        assert value(samples, "cappella_stage_seconds_count", ensemble="default", stage=stage) == 2
    for name in MEMBERS:
        assert value(samples, "cappella_call_seconds_count", model=name, role="panel") == 2
        assert value(samples, "cappella_tokens_total", model=name, role="panel", kind="prompt") == 20
    assert value(samples, "cappella_tokens_total", model="judge", role="final", kind="completion") == 6
    assert value(samples, "cappella_tokens_total", model="judge", role="analysis", kind="cached") == 8


async def test_a_run_that_fails_is_counted_by_its_error(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="break"))
    fake_engines.let("bob", Script(()))
    assert await ask(gateway) == 502
    samples = await scrape(gateway)
    assert value(samples, "cappella_runs_total", ensemble="default", status="InsufficientQuorum") == 1
    assert value(samples, "cappella_member_failures_total", model="ann", reason="engine_broke") == 1
    assert value(samples, "cappella_member_failures_total", model="bob", reason="empty_answer") == 1
    assert value(samples, "cappella_runs_in_flight", ensemble="default") == 0


async def test_engines_that_are_down_are_zero_and_not_scraped(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["ann"].status.state = "restarting"
    fake_engines.engines["ann"].status.restarts = 3
    fake_engines.engines["ann"].status.wakes = 2
    samples = await scrape(gateway)
    assert value(samples, "cappella_engine_up", model="ann") == 0
    assert value(samples, "cappella_engine_up", model="bob") == 1
    assert value(samples, "cappella_engine_restarts_total", model="ann") == 3
    assert value(samples, "cappella_engine_wakes_total", model="ann") == 2
    assert value(samples, "vllm:num_requests_running", model="ann", model_name="ann") is None
    assert value(samples, "vllm:num_requests_running", model="bob", model_name="bob") == 0


async def test_a_ready_engine_that_does_not_answer_is_left_out(gateway: str, fake_engines: FakeEngines) -> None:
    await fake_engines.servers["ann"].stop()
    samples = await scrape(gateway)
    assert value(samples, "vllm:num_requests_running", model="ann", model_name="ann") is None
    assert value(samples, "vllm:num_requests_running", model="cat", model_name="cat") == 0


async def test_an_engine_with_unreadable_metrics_is_left_out(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.servers["ann"].page = "<html>Internal Server Error</html>"
    samples = await scrape(gateway)
    assert value(samples, "vllm:num_requests_running", model="bob", model_name="bob") == 0


async def test_first_tokens_steps_floor_and_overhead_are_observed(gateway: str) -> None:
    assert await ask(gateway) == 200
    samples = await scrape(gateway)
    for name in MEMBERS:
        assert value(samples, "cappella_call_first_token_seconds_count", model=name, role="panel") == 1
    assert value(samples, "cappella_tokens_per_step_sum", model="judge", role="final") == 1
    assert value(samples, "cappella_tokens_per_step_sum", model="ann", role="panel") is None
    total = value(samples, "cappella_stage_seconds_sum", ensemble="default", stage="total")
    floor = value(samples, "cappella_run_floor_seconds_sum", ensemble="default")
    overhead = value(samples, "cappella_run_overhead_seconds_sum", ensemble="default")
    assert total
    assert floor
    assert overhead
    assert floor < total
    assert overhead < total
    assert value(samples, "cappella_deadline_seconds", ensemble="default") == 300


async def test_agreement_is_the_share_of_the_largest_group(gateway: str, fake_engines: FakeEngines) -> None:
    for name, text in zip(MEMBERS, ("It is 7.", "it is  7", "It is 8."), strict=True):
        fake_engines.let(name, Script((text,)))
    assert await ask(gateway) == 200
    samples = await scrape(gateway)
    assert value(samples, "cappella_agreement_ratio_sum", ensemble="default") == 2 / 3
    assert value(samples, "cappella_agreement_ratio_bucket", ensemble="default", le="0.625") == 0
    assert value(samples, "cappella_agreement_ratio_bucket", ensemble="default", le="0.75") == 1


async def test_long_answers_are_compared_unnormalised(gateway: str, fake_engines: FakeEngines) -> None:
    long = "It is 7. " * 100
    for name, text in zip(MEMBERS, (long, long.lower(), long), strict=True):
        fake_engines.let(name, Script((text,)))
    assert await ask(gateway) == 200
    assert value(await scrape(gateway), "cappella_agreement_ratio_sum", ensemble="default") == 2 / 3


async def test_early_and_late_prefill_of_the_judge_are_counted_apart(gateway: str, fake_engines: FakeEngines) -> None:
    words = tuple("word " * 30 for _ in range(30))
    for name in MEMBERS:
        fake_engines.let(name, Script(words, pause_s=0.02 if name == "cat" else 0.0))
    assert await ask(gateway) == 200
    samples = await scrape(gateway)
    early = value(samples, "cappella_judge_prefill_tokens_total", ensemble="default", when="early")
    assert early
    assert early % 6 == 0  # four of each prompt's ten tokens were cached
    assert value(samples, "cappella_judge_prefill_tokens_total", ensemble="default", when="late") == 6


@pytest.mark.parametrize(
    ("member", "judge", "reason"),
    [
        (Script(ending="break"), None, "member_failed"),
        (Script(), Script(ending="break"), "engine_broke"),
        (Script(), Script(()), "empty_answer"),
    ],
)
async def test_degraded_runs_are_counted_by_reason(
    gateway: str, fake_engines: FakeEngines, member: Script, judge: Script | None, reason: str
) -> None:
    fake_engines.let("cat", member)
    fake_engines.let("judge", judge_script(judge))
    assert await ask(gateway) == 200
    samples = await scrape(gateway)
    assert value(samples, "cappella_runs_degraded_total", ensemble="default", reason=reason) == 1


async def test_samples_are_counted_with_their_seat(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(samples=("one", "")))
    config = gateway_config(panel=[{"model": "ann", "samples": 2, "temperature": 1}, "bob"])
    async with serving(fake_engines, config) as url:
        assert await ask(url) == 200
        samples = await scrape(url)
    assert value(samples, "cappella_member_failures_total", model="ann", reason="empty_answer") == 1


async def test_replies_are_counted_by_endpoint_and_status_without_labels_from_clients(gateway: str) -> None:
    assert await ask(gateway) == 200
    for model in ("made-up-name", "cappella/made-up-name", "cappella/default\n"):
        assert await ask(gateway, model) == 404
    async with aiohttp.ClientSession() as http:
        for path in ("/made-up-path", "/v1/made-up-path?made-up=1"):
            async with http.get(gateway + path, headers={"Made-Up": "made-up"}) as reply:
                assert reply.status == 404
        async with http.request("PURGE", f"{gateway}/v1/models") as reply:
            assert reply.status == 405
        async with http.get(f"{gateway}/metrics") as reply:
            text = await reply.text()
    assert "made-up" not in text
    assert "PURGE" not in text
    samples = await scrape(gateway)
    chat = "/v1/chat/completions"
    assert value(samples, "cappella_http_replies_total", path=chat, status_code="200") == 1
    assert value(samples, "cappella_http_replies_total", path=chat, status_code="404") == 3
    assert value(samples, "cappella_http_replies_total", path="other", status_code="404") == 2


async def test_each_engine_has_one_state(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["ann"].status.state = "unhealthy"
    samples = await scrape(gateway)
    states = {
        state: value(samples, "cappella_engine_state", model="ann", state=state) for state in get_args(EngineState)
    }
    assert states.pop("unhealthy") == 1
    assert set(states.values()) == {0}


async def test_an_ensemble_is_ready_with_its_quorum_and_its_judge(gateway: str, fake_engines: FakeEngines) -> None:
    assert value(await scrape(gateway), "cappella_ensemble_ready", ensemble="default") == 1
    fake_engines.engines["judge"].status.state = "failed"
    assert value(await scrape(gateway), "cappella_ensemble_ready", ensemble="default") == 0
