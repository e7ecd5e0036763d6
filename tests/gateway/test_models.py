"""`/v1/models`: one entry by its name, what an entry says of its model, and aliases."""

from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from yarl import URL

from cappella.auth.keys import KeyStore
from cappella.config import Config
from support.fake_engines import FakeEngines, gateway_config, serving
from support.recorded_gateway import recording_config
from support.strict_gateway import with_keys

USER: Any = [{"role": "user", "content": "Hi"}]
ALIASES = {"openrouter/fusion": "default", "claude-sonnet-4.5": "cappella/tools", "gpt-5": "ann"}


def aliased(config: Config) -> Config:
    return config.model_copy(update={"server": config.server.model_copy(update={"aliases": ALIASES})})


async def get(url: str, path: str, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(URL(f"{url}{path}", encoded=True), headers=headers) as reply,
    ):
        return reply.status, await reply.json()


@pytest.mark.parametrize("name", ["cappella/default", "cappella%2Fdefault", "ann"])
async def test_one_entry_is_that_of_the_list(gateway: str, name: str) -> None:
    listed = (await get(gateway, "/v1/models"))[1]["data"]
    status, entry = await get(gateway, f"/v1/models/{name}")
    assert status == 200
    assert entry in listed
    assert entry["id"] == name.replace("%2F", "/")


async def test_the_list_is_one_page_of_openrouters(gateway: str) -> None:
    listed = (await get(gateway, "/v1/models"))[1]
    assert (listed["links"], listed["total_count"]) == ({"next": None}, len(listed["data"]))
    required = (
        "architecture canonical_slug context_length created default_parameters links name per_request_limits pricing"
    )
    others = "supported_parameters supported_voices top_provider"
    assert all({*required.split(), *others.split()} <= set(each) for each in listed["data"])


async def test_the_stock_clients_find_a_model_by_its_name(gateway: str) -> None:
    from anthropic import AsyncAnthropic

    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none") as stock:
        assert (await stock.models.retrieve("cappella/default")).id == "cappella/default"
        with pytest.raises(openai.NotFoundError, match="cappella/default, "):
            await stock.models.retrieve("nobody")
    async with AsyncAnthropic(base_url=gateway, api_key="none") as other:
        assert (await other.models.retrieve("ann")).id == "ann"


async def test_an_entry_says_what_a_model_takes(fake_engines: FakeEngines) -> None:
    config = gateway_config()
    seeing = config.models["ann"].model_copy(update={"images": True, "tool_parser": None, "max_model_len": 77})
    config = config.model_copy(update={"models": {**config.models, "ann": seeing}})
    async with serving(fake_engines, config) as url:
        ann = (await get(url, "/v1/models/ann"))[1]
        tools = (await get(url, "/v1/models/cappella/tools"))[1]
    assert (ann["max_model_len"], ann["context_length"], ann["tools"]) == (77, 77, False)
    modalities = {"input_modalities": ["text", "image"], "output_modalities": ["text"]}
    assert ann["architecture"] == {"modality": "text+image->text", **modalities}
    mine, theirs = set(ann["supported_parameters"]), set(tools["supported_parameters"])
    assert ("logit_bias" in mine, "tools" in mine) == (True, False)
    assert ("logit_bias" in theirs, "tools" in theirs) == (False, True)
    assert (ann["pricing"], ann["name"]) == ({"prompt": "0", "completion": "0"}, "ann")
    # One of three members sees, and the quorum is two.
    assert (tools["tools"], tools["architecture"]["input_modalities"]) == (True, ["text"])


@pytest.mark.parametrize(
    ("contexts", "ensemble", "length"),
    [
        ((8000, 4000, 2000, 100_000), {}, 4000),
        ((8000, 4000, 2000, 100_000), {"quorum": 3}, 2000),
        # 512 tokens are for notes, 1024 for the analysis, a quarter for the answers.
        ((90_000, 90_000, 90_000, 10_000), {}, 10_000 - 512 - 1024 - 2500),
        ((90_000, 90_000, 90_000, 10_000), {"analysis": "off"}, 10_000 - 512 - 2500),
        ((90_000, 90_000, 90_000, 1000), {}, 250),
    ],
)
async def test_an_ensemble_takes_what_its_quorum_and_its_judge_take(
    fake_engines: FakeEngines, contexts: tuple[int, ...], ensemble: Any, length: int
) -> None:
    config = gateway_config(**ensemble)
    models = {
        name: model.model_copy(update={"max_model_len": context})
        for (name, model), context in zip(config.models.items(), contexts, strict=True)
    }
    async with serving(fake_engines, config.model_copy(update={"models": models})) as url:
        entry = (await get(url, "/v1/models/cappella/default"))[1]
    assert (entry["context_length"], entry["max_model_len"]) == (length, length)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("alias", "text"), [("openrouter/fusion", "The final answer"), ("gpt-5", "Hello there")])
async def test_a_reply_names_the_alias_and_the_audit_log_its_target(
    fake_engines: FakeEngines, tmp_path: Path, alias: str, text: str, stream: bool
) -> None:
    got, names = "", set()
    async with (
        serving(fake_engines, aliased(recording_config(tmp_path))) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as stock,
    ):
        if stream:
            async for chunk in await stock.chat.completions.create(model=alias, messages=USER, stream=True):
                got += chunk.choices[0].delta.content or ""
                names.add(chunk.model)
        else:
            whole = await stock.chat.completions.create(model=alias, messages=USER)
            got, names = whole.choices[0].message.content or "", {whole.model}
    assert (got, names) == (text, {alias})
    target = "ann" if alias == "gpt-5" else "cappella/default"
    assert f'"model":"{target}"' in (tmp_path / "audit.jsonl").read_text()
    assert {body["model"] for body in fake_engines.servers["ann"].bodies} == {"ann"}


async def test_an_alias_stands_wherever_a_model_is_named(fake_engines: FakeEngines) -> None:
    fusion = {"analysis_models": ["gpt-5", "bob"], "analysis_overrides": [{"model": "gpt-5", "temperature": 0.1}]}
    async with serving(fake_engines, aliased(gateway_config())) as url:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as stock:
            reply: Any = await stock.chat.completions.create(
                model="openrouter/fusion", messages=USER, extra_body={"fusion": fusion}
            )
        entry = (await get(url, "/v1/models/openrouter/fusion"))[1]
    assert reply.fusion["analysis_models"] == ["ann", "bob"]
    assert fake_engines.servers["ann"].bodies[0]["temperature"] == 0.1
    assert (entry["id"], entry["alias_of"]) == ("openrouter/fusion", "cappella/default")


async def test_an_alias_needs_the_permission_of_its_target(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = tmp_path / "keys.sqlite"
    key = KeyStore(keys).create("one", ["run"], models=["ann"])
    async with serving(fake_engines, with_keys(aliased(gateway_config()), keys)) as url:
        listed = (await get(url, "/v1/models", **{"x-api-key": key}))[1]["data"]
        hidden = await get(url, "/v1/models/openrouter/fusion", **{"x-api-key": key})
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as stock:
            with pytest.raises(openai.PermissionDeniedError):
                await stock.chat.completions.create(model="openrouter/fusion", messages=USER)
            assert (await stock.chat.completions.create(model="gpt-5", messages=USER)).model == "gpt-5"
    assert [each["id"] for each in listed] == ["ann", "gpt-5"]
    assert hidden[0] == 404
