"""The tokens of a direct call are the engine's own, whatever the client asked to see; what nobody knows counts as asked."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.auth.keys import KeyStore, KeyUsage
from cappella.gateway import usage_report
from cappella.telemetry import forwarded_reply
from cappella.telemetry.forwarded_reply import ForwardedReply
from cappella.types import Usage
from support.fake_engines import MEMBERS, FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Script
from support.sleeper import Sleeper
from support.strict_gateway import with_keys

BODY = {"model": "ann", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}
PATH = "/v1/chat/completions"


async def ask(url: str, key: str, **fields: Any) -> tuple[int, str]:
    headers = {"x-api-key": key}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url + PATH, json={**BODY, **fields}) as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize(
    ("options", "is_shown"),
    [
        ({}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {"include_usage": False, "continuous_usage_stats": True}}, False),
        ({"stream_options": {"include_usage": True}}, True),
        ({"stream_interval": 1_000_000}, False),
    ],
)
async def test_a_stream_is_paid_for_and_shows_its_usage_only_where_it_was_asked(
    fake_engines: FakeEngines, tmp_path: Path, options: dict[str, Any], is_shown: bool
) -> None:
    fake_engines.let("ann", Script(tuple("abcdefg")))
    fake_engines.servers["ann"].tokens = 30
    config = with_keys(gateway_config(), tmp_path / "keys")
    store = KeyStore(tmp_path / "keys")
    key = store.create("lim", ["run"], tokens_per_minute=37)
    async with serving(fake_engines, config) as url:
        status, text = await ask(url, key, stream=True, **options)
        assert (status, '"usage"' in text) == (200, is_shown)
        assert text.endswith("data: [DONE]\n\n")
        assert "\n\n\n" not in text
        assert (await ask(url, key))[0] == 429
    assert store.usage()[store.all()[0].id] == KeyUsage(1, 30, 7)
    sent = fake_engines.servers["ann"].bodies[0]["stream_options"]
    assert (sent["include_usage"], "continuous_usage_stats" in sent) == (True, False)


async def test_an_error_of_a_stream_reaches_the_client_and_costs_nothing(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    refusal = {"error": {"message": "the usage is wrong", "type": "BadRequestError", "code": 400}}
    fake_engines.let("ann", Script(refuse=(400, refusal)))
    store = KeyStore(tmp_path / "keys")
    key = store.create("ann", ["run"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys")) as url:
        status, text = await ask(url, key, stream=True)
        assert (status, json.loads(text)) == (400, refusal)
    assert store.usage()[store.all()[0].id] == KeyUsage(1, 0, 0)


async def test_a_call_that_is_left_counts_what_it_may_have_used(fake_engines: FakeEngines, tmp_path: Path) -> None:
    fake_engines.let("ann", Script(ending="held"))
    store = KeyStore(tmp_path / "keys")
    key = store.create("ann", ["run"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys")) as url:
        left = asyncio.create_task(ask(url, key, n=3, messages=[{"role": "user", "content": "x" * 400}]))
        assert await eventually(lambda: fake_engines.running == 1)
        await asyncio.sleep(0.2)
        left.cancel()
        await asyncio.wait({left})
        assert await eventually(lambda: bool(store.usage()) and next(iter(store.usage().values())).prompt_tokens > 0)
    used = next(iter(store.usage().values()))
    assert used.prompt_tokens >= 100
    assert used.completion_tokens == 3 * 40


async def test_a_call_that_is_left_before_its_engine_is_awake_costs_nothing(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    sleeper = Sleeper(fake_engines, "ann")
    store = KeyStore(tmp_path / "keys")
    key = store.create("ann", ["run"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys")) as url:
        left = asyncio.create_task(ask(url, key, messages=[{"role": "user", "content": "x" * 400}]))
        await sleeper.is_waited_for.wait()
        left.cancel()
        await asyncio.wait({left})
        assert await eventually(lambda: bool(store.usage()))
    assert store.usage()[store.all()[0].id] == KeyUsage(1, 0, 0)


async def test_the_wake_of_an_engine_is_no_time_in_which_it_writes(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(forwarded_reply, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fake_engines.let("ann", Script(ending="held"))
    sleeper = Sleeper(fake_engines, "ann")
    store = KeyStore(tmp_path / "keys")
    key = store.create("ann", ["run"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys")) as url:
        left = asyncio.create_task(ask(url, key))
        await sleeper.is_waited_for.wait()
        now[0] = 100.0
        sleeper.wakes.set()
        assert await eventually(lambda: fake_engines.running == 1)
        left.cancel()
        await asyncio.wait({left})
        assert await eventually(lambda: bool(store.usage()) and next(iter(store.usage().values())).prompt_tokens > 0)
    assert next(iter(store.usage().values())).completion_tokens == 0


async def test_a_run_that_is_left_before_any_token_counts_the_prompts_that_were_read(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((), ending="held"))
    store = KeyStore(tmp_path / "keys")
    key = store.create("ann", ["run"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys")) as url:
        words = [{"role": "user", "content": "x" * 600}]
        left = asyncio.create_task(ask(url, key, model="cappella/default", messages=words))
        assert await eventually(lambda: fake_engines.running == len(MEMBERS))
        left.cancel()
        await asyncio.wait({left})
        assert await eventually(lambda: bool(store.usage()) and next(iter(store.usage().values())).prompt_tokens > 0)
    used = next(iter(store.usage().values()))
    assert (used.prompt_tokens >= 3 * 600 // 4, used.completion_tokens) == (True, 0)


CHUNKS = [
    {"choices": [{"delta": {"content": 'the "usage" of\n\ndata: it'}}], "usage": None},
    {"choices": [], "prompt_filter_results": []},
    {"choices": [{"delta": {}}], "usage": {"prompt_tokens": 1}},
]
REPORT: dict[str, Any] = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}


@given(st.lists(st.integers(1, 60)), st.sampled_from([b"\n", b"\r\n"]))
def test_the_report_is_taken_out_however_the_stream_is_cut(cuts: list[int], end: bytes) -> None:
    def written(*events: object) -> bytes:
        return b"".join(b"data: " + json.dumps(event).encode() + end + end for event in events)

    done = b": comment" + end + end + b"data: [DONE]" + end + end + b"the end"
    stream = written(CHUNKS[0], CHUNKS[1], REPORT, CHUNKS[2]) + done
    _, shown = usage_report.requested(PATH, {"stream": True}, b"{}")
    got, rest = b"", stream
    for cut in cuts:
        got += shown.feed(rest[:cut])
        rest = rest[cut:]
    got += shown.feed(rest) + shown.rest()
    assert got == written(*CHUNKS) + done


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        (b'{"choices": [{"text": "%b"}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}', Usage(5, 0, 7)),
        (b'{"output": "%b", "usage":{"input_tokens":5,"output_tokens":7}, "metadata": {"usage": "x"}}', Usage(5, 0, 7)),
        (b'{"usage": {"prompt_tokens": 5, "completion_tokens": 7}, "t": "%b \\"usage\\": {}"}', None),
        (b'data: {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}\n\ndata: {"usage": null}\n\n', Usage(5, 0, 7)),
        (b'{"usage": {"prompt_tokens": 1e999}}', None),
        (b'{"usage": ' + b"[" * 5000, None),
    ],
)
def test_usage_is_found_at_the_end_of_a_reply_of_any_size(reply: bytes, usage: Usage | None) -> None:
    found = ForwardedReply({"prompt": "x" * 39}, answers=2, tokens=0)
    found.begin(200)
    text = reply.replace(b"%b", b"word " * 4_000_000)
    for at in range(0, len(text), 1 << 20):
        found.add(text[at : at + (1 << 20)])
    assert found.usage == (usage or Usage(10, 0, 0, estimated=True))


def test_an_image_is_no_text_and_a_token_is_one() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    text = {"type": "text", "text": "x" * 400}
    found = ForwardedReply({"messages": [{"role": "user", "content": [image, text]}], "prompt": [7] * 50}, 1, 0)
    found.sent()
    assert 150 <= found.usage.prompt_tokens < 160
