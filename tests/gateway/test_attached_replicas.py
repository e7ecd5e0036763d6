"""A model on several attached servers, as clients and operators see it: one model that goes on while one of them lives."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from cappella.cli.client.machine_view import Machine
from cappella.config import identity, load
from cappella.doctor.checks import checks
from cappella.errors import ConfigError
from cappella.gateway import admission
from support.attached_house import HELLO, House, house
from support.fake_engines import eventually
from support.plain_server import PlainServer

Json = dict[str, Any]
OTHER = {"url": "http://127.0.0.1:9/v1", "max_model_len": 64}


def written(folder: Path, url: Any, **models: Json) -> Path:
    big = {"url": url, "model": "Big/Model-70B", "max_model_len": 4096, "max_num_seqs": 4}
    default = {"panel": ["big", "big"], "judge": "big", "analysis": "off"}
    path = folder / "c.yaml"
    path.write_text(json.dumps({"models": {"big": big, **models}, "ensembles": {"default": default}}))
    return path


@pytest.fixture
async def servers() -> AsyncIterator[list[PlainServer]]:
    servers = [await PlainServer().start() for _ in range(3)]
    yield servers
    for server in servers:
        server.released.set()
        await server.stop()


@pytest.fixture
async def two(servers: list[PlainServer], tmp_path: Path) -> AsyncIterator[House]:
    async with house(written(tmp_path, [each.url for each in servers[:2]])) as found:
        assert await eventually(lambda: all(state == "ready" for state in states(found)))
        yield found


def states(house: House) -> list[str]:
    return [status.state for status in house.supervisor.deployment.replica_statuses.values()]


@asynccontextmanager
async def streamed(house: House) -> AsyncIterator[aiohttp.ClientResponse]:
    """A call of the model whose answer has begun."""
    body = {"model": "big", "messages": HELLO, "stream": True}
    async with aiohttp.ClientSession() as http, http.post(f"{house.url}/v1/chat/completions", json=body) as reply:
        await reply.content.readany()
        yield reply


async def whole_stream(house: House) -> bytes:
    body = {"model": "big", "messages": HELLO, "stream": True}
    async with aiohttp.ClientSession() as http, http.post(f"{house.url}/v1/chat/completions", json=body) as reply:
        return await reply.read()


async def test_runs_and_calls_by_name_are_spread_over_the_servers(two: House, servers: list[PlainServer]) -> None:
    for _ in range(4):
        assert (await two.ask())[0] == 200
        assert (await two.ask(model="big"))[0] == 200
    first, second, third = (len(server.chats) for server in servers)
    assert (first + second, third) == (4 * (3 + 1), 0)
    assert abs(first - second) <= 2


async def test_as_many_calls_run_at_once_as_the_servers_take_together(two: House, servers: list[PlainServer]) -> None:
    for server in servers:
        server.holds = True
    calls = [asyncio.create_task(whole_stream(two)) for _ in range(9)]
    # Some of the eight are reserved for runs.
    assert await eventually(lambda: servers[0].running == servers[1].running == 3)
    assert (await two.get("/api/machine"))["queue"]["waiting"] == {"big": 3}
    for server in servers:
        server.released.set()
    assert all(b"[DONE]" in text for text in await asyncio.gather(*calls))


async def test_only_as_many_calls_run_as_the_living_servers_take_until_another_comes_back(
    two: House, servers: list[PlainServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "LOOK_AGAIN_S", 0.05)
    await servers[0].stop()
    assert await eventually(lambda: states(two) == ["unhealthy", "ready"])
    servers[1].holds = True
    calls = [asyncio.create_task(whole_stream(two)) for _ in range(6)]
    assert await eventually(lambda: servers[1].running == 3)
    assert (await two.get("/api/machine"))["queue"]["waiting"] == {"big": 3}
    await servers[0].start()
    assert await eventually(lambda: sum(call.done() for call in calls) == 3)
    assert servers[1].running == 3
    servers[1].released.set()
    assert all(b"[DONE]" in text for text in await asyncio.gather(*calls))


async def test_nothing_is_lost_while_one_server_lives_and_each_is_shown(two: House, servers: list[PlainServer]) -> None:
    await servers[0].stop()
    assert [(await two.ask())[0] for _ in range(3)] == [200] * 3
    assert await eventually(lambda: states(two) == ["unhealthy", "ready"])
    assert (await two.get("/ready"))["ready"] is True
    machine = await two.get("/api/machine")
    big = machine["engines"]["big"]
    assert (big["state"], big["stage"]) == ("ready", "1 of 2 replicas ready")
    assert big["url"] == f"{servers[0].url}, {servers[1].url}"
    assert [(each["name"], each["state"], each["url"]) for each in big["replicas"]] == [
        ("big-1", "unhealthy", servers[0].url),
        ("big-2", "ready", servers[1].url),
    ]
    assert big["replicas"][0]["failed"] >= 1
    shown = StringIO()
    Console(width=120, file=shown).print(Machine(machine, two.url))
    lines = shown.getvalue().splitlines()
    assert any(re.match(r" +big-1 +unhealthy", line) for line in lines)
    assert any(re.match(r" +big-2 +ready", line) for line in lines)
    async with aiohttp.ClientSession() as http, http.get(f"{two.url}/metrics") as reply:
        page = await reply.text()
    assert 'cappella_replica_up{model="big",replica="big-1"} 0.0' in page
    assert 'cappella_replica_up{model="big",replica="big-2"} 1.0' in page
    assert 'cappella_engine_up{model="big"} 1.0' in page


async def test_without_a_living_server_the_model_is_down_as_one_on_a_single_server(
    two: House, servers: list[PlainServer]
) -> None:
    for server in servers[:2]:
        await server.stop()
    assert await eventually(lambda: states(two) == ["unhealthy", "unhealthy"])
    status, reply = await two.ask(model="big")
    assert (status, reply["error"]["code"]) == (503, "model_not_ready")
    assert (await two.ask())[0] == 503
    assert (await two.get("/ready"))["ready"] is False


async def test_a_client_that_leaves_ends_its_call_at_the_server_that_has_it(
    two: House, servers: list[PlainServer]
) -> None:
    for server in servers:
        server.holds = True
    async with streamed(two):
        assert sum(server.running for server in servers) == 1
    assert await eventually(lambda: sum(server.aborted for server in servers) == 1)
    assert two.supervisor.engines["big"].in_flight == 0


async def test_a_reload_changes_the_servers_and_loses_no_call(two: House, servers: list[PlainServer]) -> None:
    servers[0].holds = servers[1].holds = True
    async with streamed(two) as reply:
        written(two.path.parent, [servers[1].url, servers[2].url])
        told = await two.app.state.reloader.reload()
        assert (told["started"], told["ended"]) == (["big"], ["big"])
        servers[1].holds = False
        assert [(await two.ask(model="big"))[0] for _ in range(4)] == [200] * 4
        assert len(servers[2].chats) >= 1
        for server in servers:
            server.released.set()
        assert b"[DONE]" in await reply.content.read()
    assert await eventually(lambda: two.app.state.reloader.in_flight == 0)


async def test_an_operator_cannot_stop_a_replica_that_runs_elsewhere(two: House) -> None:
    for name in ("big", "big-1"):
        status, reply = await two.ask(f"/api/engines/{name}/restart")
        assert (status, reply["error"]["code"]) == (409, "action_refused")


async def test_doctor_asks_each_server(servers: list[PlainServer], tmp_path: Path) -> None:
    servers[1].model = "Other"
    loaded = load.load(written(tmp_path, [each.url for each in servers[:2]]))
    found = await asyncio.to_thread(lambda: [each for each in checks(loaded) if "server of" in each.name])
    assert [(each.name, each.level) for each in found] == [("server of big-1", "ok"), ("server of big-2", "warn")]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ([], r"models\.big\.url: url lists none"),
        (
            [f"http://127.0.0.1:{port}/v1" for port in range(8000, 8065)],
            r"models\.big\.url: url lists 65 servers: give 64",
        ),
        (["http://127.0.0.1:8/v1", "http://127.0.0.1:8/v1/"], r"models\.big\.url: .*listed twice"),
        (["http://127.0.0.1:8/v1", "http://127.0.0.1:9"], r"models\.big\.url: .*not the URL of an API"),
        (["http://127.0.0.1:8/v1", 7], r"models\.big\.url: .*or a list of URLs"),
        (7, r"models\.big\.url: .*or a list of URLs"),
        (["http://127.0.0.1:8/v1", "http://10.0.0.7:8/v1"], r"models\.big\.url\.1: 10\.0\.0\.7 is neither"),
    ],
)
def test_a_mistake_in_the_list_is_named_with_its_place(tmp_path: Path, url: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load.load(written(tmp_path, url))


def test_no_other_model_may_have_the_name_of_a_replica(tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:7/v1", "http://127.0.0.1:8/v1"]
    with pytest.raises(ConfigError, match="'big-2' is the name of a replica"):
        load.load(written(tmp_path, urls, **{"big-2": OTHER}))
    assert load.load(written(tmp_path, urls[:1], **{"big-2": OTHER})).servers_of(["big"]) == ["big"]


def test_what_a_model_says_does_not_depend_on_the_order_of_its_servers(tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:7/v1", "http://127.0.0.1:8/v1"]
    digests = {identity.digest(load.load(written(tmp_path, each))) for each in (urls, urls[::-1])}
    assert len(digests) == 1
