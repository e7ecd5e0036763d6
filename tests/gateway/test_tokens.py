"""Token counts: Anthropic's count_tokens, and vLLM's /tokenize and /detokenize."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.gateway import tokens
from support.fake_engines import FakeEngines, gateway_config, serving
from support.recorded_gateway import SECRET, client, recording_config
from support.sleeper import Sleeper
from support.strict_gateway import with_keys

USER: Any = [{"role": "user", "content": SECRET}]
COUNT = "/v1/messages/count_tokens"


async def post(url: str, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}{path}", json=body, headers=headers) as reply:
        return reply.status, await reply.json()


@pytest.mark.parametrize(("model", "counter"), [("cappella/default", "judge"), ("ann", "ann")])
async def test_a_conversation_is_counted_by_the_judges_or_the_models_tokenizer(
    gateway: str, fake_engines: FakeEngines, model: str, counter: str
) -> None:
    from anthropic import AsyncAnthropic

    seen: list[Any] = []
    fake_engines.servers[counter].tokens_of = lambda body: seen.append(body) or 1234  # type: ignore[func-returns-value]
    tool: Any = {"name": "f", "input_schema": {"type": "object"}}
    async with AsyncAnthropic(base_url=gateway, api_key="none", max_retries=0) as stock:
        count = await stock.messages.count_tokens(model=model, messages=USER, system="Be brief.", tools=[tool])
        beta = await stock.beta.messages.count_tokens(model=model, messages=USER)
    assert (count.input_tokens, beta.input_tokens) == (1234, 1234)
    assert [message["role"] for message in seen[0]["messages"]] == ["system", "user"]
    assert seen[0]["tools"][0]["function"]["name"] == "f"
    assert fake_engines.running == 0


@pytest.mark.parametrize(
    ("body", "status"), [({"model": "nobody", "messages": USER}, 404), ({"model": "ann"}, 400), ([], 400)]
)
async def test_errors_of_a_count_are_anthropics(gateway: str, body: Any, status: int) -> None:
    assert (await post(gateway, f"{COUNT}?beta=true", body))[0] == status
    assert (await post(gateway, COUNT, body))[1]["type"] == "error"


async def test_a_count_needs_no_turn_in_the_queue_but_a_ready_engine(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "loading"
    status, reply = await post(gateway, COUNT, {"model": "cappella/default", "messages": USER})
    assert (status, reply["error"]["code"]) == (503, "model_not_ready")


async def test_a_count_takes_a_keys_permission_and_one_of_its_requests(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.sqlite"
    key = KeyStore(keys).create("one", ["run"], models=["ann"], requests_per_minute=1)
    async with serving(fake_engines, with_keys(gateway_config(), keys)) as url:
        body = {"model": "ann", "messages": USER}
        statuses = [(await post(url, COUNT, body))[0]]
        statuses.append((await post(url, COUNT, {**body, "model": "bob"}, **{"x-api-key": key}))[0])
        statuses += [(await post(url, COUNT, body, **{"x-api-key": key}))[0] for _ in range(2)]
    assert statuses == [401, 403, 200, 429]


async def test_a_count_is_in_the_audit_log_and_costs_nothing(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with (
        client(fake_engines, recording_config(tmp_path)) as http,
        http.post(COUNT, json={"model": "ann", "messages": USER}) as reply,
    ):
        assert reply.status == 200
    (line,) = [line for line in (tmp_path / "audit.jsonl").read_text().splitlines() if '"kind":"call"' in line]
    assert '"completion":0' in line
    assert '"prompt":0' in line
    assert SECRET not in line


async def test_vllms_tokenizer_can_be_asked_with_the_fields_of_a_list(gateway: str, fake_engines: FakeEngines) -> None:
    status, reply = await post(gateway, "/tokenize", {"model": "ann", "prompt": "Hi"})
    assert (status, reply["count"]) == (200, 10)
    assert await post(gateway, "/detokenize", {"model": "ann", "tokens": [1]}) == (200, {"prompt": "Hi"})
    assert fake_engines.servers["ann"].bodies == [{"model": "ann", "tokens": [1]}]
    status, reply = await post(gateway, "/tokenize", {"model": "ann", "messages": USER, "chat_template": "{{ x }}"})
    assert (status, reply["error"]["param"]) == (400, "chat_template")
    status, reply = await post(gateway, "/tokenize", {"model": "cappella/default", "prompt": "Hi"})
    assert (status, "call it with judge" in reply["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", [COUNT, "/tokenize"])
async def test_the_time_of_counts_begins_when_their_engine_is_awake(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(tokens, "TIMEOUT_S", 0.2)
    sleeper = Sleeper(fake_engines, "ann")
    body = {"model": "ann", "messages": USER}
    # More than proceed at a time.
    asked = [asyncio.create_task(post(gateway, path, body)) for _ in range(2 * tokens.AT_ONCE)]
    await sleeper.is_waited_for.wait()
    await asyncio.sleep(0.4)
    monkeypatch.setattr(tokens, "TIMEOUT_S", 20.0)
    sleeper.wakes.set()
    assert [status for status, _ in await asyncio.gather(*asked)] == [200] * len(asked)
    monkeypatch.setattr(tokens, "TIMEOUT_S", 0.2)
    fake_engines.servers["ann"].holds_counts = True
    assert (await post(gateway, path, body))[0] == 504
