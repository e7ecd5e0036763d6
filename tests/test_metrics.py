"""Figures: our own add up, the engines' own stand beside them, and one bad engine spoils nothing."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from choir import MEMBERS, Choir
from scripted_engine import Script

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(url: str) -> Samples:
    """Every sample by name and labels; the parser refuses what Prometheus would refuse."""
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


async def test_a_run_that_fails_is_counted_by_its_error(gateway: str, choir: Choir) -> None:
    choir.let("ann", Script(ending="break"))
    choir.let("bob", Script(()))
    assert await ask(gateway) == 502
    samples = await scrape(gateway)
    assert value(samples, "cappella_runs_total", ensemble="default", status="InsufficientQuorum") == 1
    assert value(samples, "cappella_runs_in_flight", ensemble="default") == 0


async def test_engines_that_are_down_are_zero_and_not_asked(gateway: str, choir: Choir) -> None:
    choir.engines["ann"].status.state = "restarting"
    choir.engines["ann"].status.restarts = 3
    samples = await scrape(gateway)
    assert value(samples, "cappella_engine_up", model="ann") == 0
    assert value(samples, "cappella_engine_up", model="bob") == 1
    assert value(samples, "cappella_engine_restarts", model="ann") == 3
    assert value(samples, "vllm:num_requests_running", model="ann", model_name="ann") is None
    assert value(samples, "vllm:num_requests_running", model="bob", model_name="bob") == 0


async def test_an_engine_that_is_ready_and_does_not_answer_is_left_out(gateway: str, choir: Choir) -> None:
    await choir.servers["ann"].stop()
    samples = await scrape(gateway)
    assert value(samples, "vllm:num_requests_running", model="ann", model_name="ann") is None
    assert value(samples, "vllm:num_requests_running", model="cat", model_name="cat") == 0


async def test_an_engine_whose_figures_cannot_be_read_is_left_out(gateway: str, choir: Choir) -> None:
    choir.servers["ann"].page = "<html>Internal Server Error</html>"
    samples = await scrape(gateway)
    assert value(samples, "vllm:num_requests_running", model="bob", model_name="bob") == 0
