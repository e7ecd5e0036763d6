"""The bodies that other people's programs send, as data (`tests/clients/bodies`), and what each reads of the reply."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config import Config
from cappella.types import Capabilities
from support.fake_engines import MEMBERS, FakeEngines, serving
from support.recorded_gateway import recording_config
from support.scripted_engine import Json, Script

FOLDER = Path(__file__).parents[1] / "clients" / "bodies"
FILES: Json = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
REQUESTS = {f"{stem}: {each['name']}": each for stem, file in FILES.items() for each in file["requests"]}
TO_ENSEMBLE = {name: each for name, each in REQUESTS.items() if each.get("only") != "model"}
TO_MODEL = {name: each for name, each in REQUESTS.items() if not each["body"].get("store")}
WITH_TOOLS = {name: each for name, each in TO_ENSEMBLE.items() if each["body"].get("tools")}
STORED = [each for each in REQUESTS.values() if each["body"].get("store")]
ARGUMENTS = '{"path": "b.txt"}'


def for_clients(config: Config) -> Config:
    """Models that see and have room for an agent's conversation; the ensemble takes tools."""
    more = {"images": True, "max_model_len": 8000}
    models = {name: model.model_copy(update=more) for name, model in config.models.items()}
    return config.model_copy(update={"models": models})


async def stream(url: str, asked: Json, model: str) -> tuple[list[Json], str]:
    """The events of a request's stream, which was not refused, and what it tells was ignored."""
    body = {"model": model, **asked["body"]}
    async with aiohttp.ClientSession() as http, http.post(url + asked["path"], json=body) as reply:
        text = await reply.text()
        assert reply.status == 200, text
        return list(events(text)), reply.headers.get("x-cappella-ignored", "")


def events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def read_chat(sent: list[Json]) -> tuple[str, dict[int, Json], Json]:
    """As a client puts a stream together: the text, the calls by their index, and the usage."""
    text, calls, usage = "", {}, {}  # type: str, dict[int, Json], Json
    for chunk in sent:
        assert chunk["id"]
        assert isinstance(chunk["created"], int)
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] = part.get("id") or call["id"]
                call["name"] += part["function"].get("name") or ""
                call["arguments"] += part["function"].get("arguments") or ""
    return text, calls, usage


def read_responses(sent: list[Json]) -> tuple[str, dict[int, Json], Json]:
    """The text of the deltas, the calls of the items that are done, and the usage of the last event."""
    text = "".join(event["delta"] for event in sent if event["type"] == "response.output_text.delta")
    done = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    assert sent[-1]["type"] == "response.completed"
    calls = [{"id": item["call_id"], **item} for item in done if item["type"] == "function_call"]
    return text, dict(enumerate(calls)), sent[-1]["response"]["usage"]


def read_messages(sent: list[Json]) -> tuple[str, dict[int, Json], Json]:
    """The text and the calls of the blocks, and the usage of the last delta."""
    text, calls, usage = "", {}, {}  # type: str, dict[int, Json], Json
    for event in sent:
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            calls[event["index"]] = {**event["content_block"], "arguments": ""}
        if event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
            if event["index"] in calls:
                calls[event["index"]]["arguments"] += event["delta"].get("partial_json", "")
        usage = event.get("usage") or usage
    assert sent[-1]["type"] == "message_stop"
    return text, calls, usage


def told_of(asked: Json) -> list[str]:
    """The names in x-cappella-ignored."""
    names: list[str] = asked.get("ignored", [])
    return names


READ = {"/v1/chat/completions": read_chat, "/v1/responses": read_responses, "/v1/messages": read_messages}


@pytest.fixture
def config(fake_engines: FakeEngines, tmp_path: Path) -> Config:
    """One that keeps runs: what a client stores can be read again."""
    for engine in fake_engines.engines.values():
        engine.capabilities = Capabilities(images=True, tools=True, reasoning=True)
    return for_clients(recording_config(tmp_path, runs={"content": True}))


@pytest.mark.parametrize("asked", TO_ENSEMBLE.values(), ids=TO_ENSEMBLE)
async def test_a_client_reads_an_answer_of_an_ensemble(fake_engines: FakeEngines, config: Config, asked: Json) -> None:
    async with serving(fake_engines, config) as url:
        sent, ignored = await stream(url, asked, "cappella/tools")
    text, calls, usage = READ[asked["path"]](sent)
    assert (text, calls) == ("The final answer", {})
    assert ignored == ", ".join(told_of(asked))
    if asked["path"] != "/v1/chat/completions" or "stream_options" in asked["body"]:
        assert usage.get("prompt_tokens") or usage.get("input_tokens") or usage["output_tokens"]


@pytest.mark.parametrize("asked", WITH_TOOLS.values(), ids=WITH_TOOLS)
async def test_a_client_reads_a_call_of_an_ensemble(fake_engines: FakeEngines, config: Config, asked: Json) -> None:
    for name in (*MEMBERS, "judge"):
        fake_engines.let(name, Script((), calls=(("read_file", ARGUMENTS),), call_id="new", finish_reason="tool_calls"))
    async with serving(fake_engines, config) as url:
        sent, _ = await stream(url, asked, "cappella/tools")
    text, calls, _ = READ[asked["path"]](sent)
    assert not text
    (call,) = calls.values()
    assert call["id"]
    assert (call["name"], json.loads(call["arguments"])) == ("read_file", json.loads(ARGUMENTS))


@pytest.mark.parametrize("asked", TO_MODEL.values(), ids=TO_MODEL)
async def test_a_model_gets_a_clients_request_without_what_nobody_knows(
    fake_engines: FakeEngines, config: Config, asked: Json
) -> None:
    async with serving(fake_engines, config) as url:
        _, ignored = await stream(url, asked, "ann")
    told = told_of(asked)
    assert ignored == ", ".join(told)
    (got,) = fake_engines.servers["ann"].bodies
    assert not [name for name in told if f'"{name.rpartition(".")[2]}"' in json.dumps(got) and name != "max_tokens"]


@pytest.mark.parametrize("asked", STORED, ids=lambda asked: asked["name"])
async def test_a_client_that_stores_hears_of_it_where_nothing_is_stored(gateway: str, asked: Json) -> None:
    body = {"model": "cappella/tools", **asked["body"]}
    async with aiohttp.ClientSession() as http, http.post(gateway + asked["path"], json=body) as reply:
        assert (reply.status, reply.headers["x-cappella-ignored"]) == (200, ", ".join(["store", *told_of(asked)]))


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_each_body_names_the_source_that_it_rests_on(file: Any) -> None:
    for source in file["rests_on"]:
        assert source["repository"].count("/") == 1
        assert len(source.get("commit", "")) == 40 or source.get("version") or source.get("issue")
