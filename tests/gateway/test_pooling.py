"""Embeddings, reranking and scores over scripted engines: the wire, the limits, the keys, and what is told of a model."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from cappella.auth.keys import KeyStore
from cappella.config.limits import Limits
from support.fake_engines import FakeEngines, serving
from support.scripted_pooling import ScriptedPooling, add_pooling, pooling_config
from support.strict_gateway import with_keys

EMBED: Any = {"model": "emb", "input": "a"}
RERANK: Any = {"model": "rank", "query": "q", "documents": ["aa", "b", "cccc"]}
SCORE: Any = {"model": "rank", "queries": "q", "documents": ["aa", "b"]}
CLASSIFY: Any = {"model": "rm", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
CHAT: Any = {"messages": [{"role": "user", "content": "Hi"}]}
CALLS = {"/v1/embeddings": EMBED, "/v1/rerank": RERANK, "/v1/score": SCORE, "/classify": CLASSIFY}


@pytest.fixture
async def scripted(fake_engines: FakeEngines, tmp_path: Path) -> Mapping[str, ScriptedPooling]:
    return await add_pooling(fake_engines, tmp_path)


@pytest.fixture
async def url(fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]) -> AsyncIterator[str]:
    aliases = {"text-embedding-3-small": "emb", "judge-2": "rm"}
    async with serving(fake_engines, pooling_config(aliases=aliases)) as url:
        yield url


async def post(url: str, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}{path}", json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def test_openais_client_gets_embeddings_as_numbers_and_as_base64(
    url: str, scripted: Mapping[str, ScriptedPooling]
) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = await client.embeddings.create(
            model="emb", input=["a", "b"], encoding_format="float", dimensions=2, user="u"
        )
    assert [each.embedding for each in reply.data] == [[1.0, 0.5]] * 2
    assert reply.usage.prompt_tokens == 10
    (body,) = scripted["emb"].bodies
    assert body["dimensions"] == 2


@pytest.mark.parametrize("text", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
async def test_an_embedding_is_of_texts_or_of_token_ids(
    url: str, scripted: Mapping[str, ScriptedPooling], text: Any
) -> None:
    status, _ = await post(url, "/v1/embeddings", {**EMBED, "input": text})
    assert status == 200
    assert scripted["emb"].bodies[0]["input"] == text


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": [["a"]]}, "input"),
        ("/v1/embeddings", {"input": [-1]}, "input"),
        ("/v1/embeddings", {"input": [{"image_url": "http://x"}]}, "input"),
        ("/v1/embeddings", {"encoding_format": "bytes"}, "encoding_format"),
        ("/v1/embeddings", {"dimensions": 0}, "dimensions"),
        ("/v1/rerank", {"documents": []}, "documents"),
        ("/v1/rerank", {"query": {"content": []}}, "query"),
        ("/v1/rerank", {"top_n": -1}, "top_n"),
        ("/v1/score", {"queries": ["a", "b", "c"]}, None),
        ("/v1/score", {"text_1": "a", "text_2": "b"}, None),
        ("/classify", {"input": "x"}, None),
    ],
)
async def test_another_shape_is_refused_by_its_field(
    url: str, scripted: Mapping[str, ScriptedPooling], path: str, change: Any, param: str | None
) -> None:
    status, reply = await post(url, path, {**CALLS[path], **change})
    assert status == 400
    assert (reply["error"]["param"] or "").startswith(param or "")
    assert not any(server.bodies for server in scripted.values())


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_are_ranked_and_may_be_left_out(
    url: str, scripted: Mapping[str, ScriptedPooling], path: str
) -> None:
    _, reply = await post(url, path, {**RERANK, "top_n": 2})
    assert [(each["index"], each["relevance_score"]) for each in reply["results"]] == [(2, 4), (0, 2)]
    assert reply["results"][0]["document"]["text"] == "cccc"
    objects = [{"text": text} for text in RERANK["documents"]]
    _, bare = await post(url, path, {**RERANK, "documents": objects, "top_n": 2, "return_documents": False})
    assert bare["results"] == [{"index": 2, "relevance_score": 4}, {"index": 0, "relevance_score": 2}]
    assert scripted["rank"].bodies[1]["documents"] == RERANK["documents"]
    assert "return_documents" not in scripted["rank"].bodies[1]


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")]
)
async def test_scores_are_asked_for_in_each_of_vllms_spellings(
    url: str, scripted: Mapping[str, ScriptedPooling], names: tuple[str, str]
) -> None:
    _, reply = await post(url, "/v1/score", {"model": "rank", names[0]: "q", names[1]: ["aa", "b"]})
    assert [each["score"] for each in reply["data"]] == [2, 1]
    assert scripted["rank"].bodies[0]["queries"] == "q"
    assert scripted["rank"].asked == ["/score"]


async def test_a_reward_model_scores_a_conversation(url: str) -> None:
    _, reply = await post(url, "/classify", CLASSIFY)
    assert reply["data"][0]["probs"] == [2]


@pytest.mark.parametrize(
    ("path", "body", "able"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "emb"}, "cappella/default"),
        ("/v1/messages", {**CHAT, "model": "rm", "max_tokens": 1}, "ann"),
        ("/v1/responses", {"model": "rank", "input": "Hi"}, "ann"),
        ("/v1/completions", {"model": "emb", "prompt": "Hi"}, "ann"),
        ("/api/chat", {**CHAT, "model": "emb"}, "ann"),
        ("/v1/embeddings", {**EMBED, "model": "ann"}, "emb"),
        ("/v1/embeddings", {**EMBED, "model": "cappella/default"}, "emb"),
        ("/v1/embeddings", {**EMBED, "model": "rm"}, "emb"),
        ("/v1/rerank", {**RERANK, "model": "rm"}, "rank"),
        ("/classify", {**CLASSIFY, "model": "emb"}, "rm"),
    ],
)
async def test_a_model_of_another_task_is_refused_with_the_names_of_those_that_can(
    url: str, fake_engines: FakeEngines, path: str, body: Any, able: str
) -> None:
    status, reply = await post(url, path, body)
    error = reply["error"]
    message = error if isinstance(error, str) else error["message"]
    assert status == 400
    instead = message.rpartition("Call ")[2].rstrip(".").split(", ")
    assert able in instead
    assert body["model"] not in instead
    assert not any(server.bodies for server in fake_engines.servers.values())


async def test_an_unknown_model_is_not_found(url: str) -> None:
    status, reply = await post(url, "/v1/embeddings", {**EMBED, "model": "nobody"})
    assert (status, reply["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "change", "limit"),
    [
        ("/v1/embeddings", {"input": ["a"] * 9}, "inputs"),
        ("/v1/rerank", {"documents": ["a"] * 9}, "inputs"),
        ("/v1/score", {"documents": ["a"] * 9}, "inputs"),
        ("/v1/embeddings", {"input": ["a" * 51] * 2}, "input_chars"),
        ("/v1/embeddings", {"input": [7] * 26}, "input_chars"),
        # A query is read with each of its documents.
        ("/v1/rerank", {"query": "q" * 40, "documents": ["a", "b", "c"]}, "input_chars"),
        ("/v1/score", {"queries": "q" * 40, "documents": ["a", "b", "c"]}, "input_chars"),
    ],
)
async def test_too_many_and_too_large_texts_are_refused_before_an_engine_reads_them(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling], path: str, change: Any, limit: str
) -> None:
    limits = Limits(inputs=8, input_chars=100)
    async with serving(fake_engines, pooling_config({"limits": limits.model_dump()})) as url:
        status, reply = await post(url, path, {**CALLS[path], **change})
    assert (status, reply["error"]["code"]) == (400, "too_large")
    assert f"server.limits.{limit}" in reply["error"]["message"]
    assert not any(server.bodies for server in scripted.values())


async def test_an_alias_is_named_in_the_reply(url: str, scripted: Mapping[str, ScriptedPooling]) -> None:
    _, reply = await post(url, "/v1/embeddings", {**EMBED, "model": "text-embedding-3-small"})
    assert reply["model"] == "text-embedding-3-small"
    assert scripted["emb"].bodies[0]["model"] == "emb"


async def test_what_is_unknown_is_told_and_not_sent(url: str, scripted: Mapping[str, ScriptedPooling]) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/embeddings", json={**EMBED, "odd": 1}) as reply:
        assert reply.headers["x-cappella-ignored"] == "odd"
    assert "odd" not in scripted["emb"].bodies[0]


async def test_a_key_pays_for_what_it_reads_and_calls_what_it_may(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling], tmp_path: Path
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("one", ["run"], models=["emb"], requests_per_minute=2)
    audit = tmp_path / "audit.jsonl"
    config = pooling_config({"audit": {"file": str(audit), "log_content": True}})
    async with serving(fake_engines, with_keys(config, tmp_path / "keys.sqlite")) as url:
        headers = {"x-api-key": key}
        assert (await post(url, "/v1/rerank", RERANK, **headers))[0] == 403
        assert (await post(url, "/v1/embeddings", EMBED, **headers))[0] == 200
        assert "cache_salt" in scripted["emb"].bodies[0]
        statuses = [(await post(url, "/v1/embeddings", EMBED, **headers))[0] for _ in range(2)]
    assert 429 in statuses
    (line,) = [json.loads(each) for each in audit.read_text().splitlines() if '"status":"ok"' in each][:1]
    assert line["tokens"]["prompt"] == 10
    assert line["content"]["input"] == "a"
    assert line["content"]["answer"] is None


async def test_the_list_says_what_each_model_does(url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/models") as reply:
        entries = {each["id"]: each for each in (await reply.json())["data"]}
    assert {name: entries[name]["task"] for name in ("ann", "emb", "rank", "rm", "cappella/best")} == {
        "ann": "generate",
        "emb": "embed",
        "rank": "rerank",
        "rm": "reward",
        "cappella/best": "generate",
    }
    assert entries["emb"]["endpoints"] == ["/v1/embeddings", "/v1/rerank", "/v1/score"]
    assert entries["emb"]["architecture"]["output_modalities"] == ["embeddings"]
    assert entries["emb"]["supported_parameters"] == []
    assert entries["text-embedding-3-small"]["task"] == "embed"


async def test_the_machine_view_and_ollamas_show_say_it_too(url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/machine") as reply:
        assert (await reply.json())["engines"]["rm"]["task"] == "reward"
    _, shown = await post(url, "/api/show", {"model": "emb"})
    assert shown["capabilities"] == ["embedding"]


async def test_an_engine_that_writes_nothing_is_probed_by_its_own_call(
    scripted: Mapping[str, ScriptedPooling],
) -> None:
    for server in scripted.values():
        await server.engine.probe()
    assert {name: server.asked for name, server in scripted.items()} == {
        "emb": ["/v1/embeddings"],
        "rank": ["/score"],
        "rm": ["/classify"],
    }
