"""Replicas on attached servers, each with its own health check: one that hangs, drains or goes away, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cappella.background import background
from cappella.config import RemoteModel
from cappella.engines import backends, http_engine
from cappella.engines.remote import Attachment
from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.replicas import Replicas
from cappella.errors import EngineBroke
from cappella.types import Prompt, Sampling
from support.fake_engines import eventually
from support.plain_server import PlainServer

CHECK_S = 0.02
HUNG_AFTER_S = 0.3


class House:
    """Two attached servers of one model."""

    def __init__(self, servers: list[PlainServer]) -> None:
        self.servers = servers
        urls = tuple(server.url for server in servers)
        model = RemoteModel(url=urls, model="Big/Model-70B", max_model_len=4096, hung_after_s=HUNG_AFTER_S)
        clients = backends.remote_engines("big", model)
        self.watches = [Attachment(client, model, CHECK_S, has_others=True) for client in clients.values()]
        replicas = [Replica(name, client, 8) for name, client in clients.items()]
        self.statuses = [each.engine.status for each in replicas]
        self.big = Replicas("big", model.capabilities, replicas)

    async def run(self) -> None:
        await asyncio.gather(*(watch.run() for watch in self.watches))

    def chats(self) -> list[int]:
        return [len(server.chats) for server in self.servers]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    servers = [await PlainServer().start() for _ in range(2)]
    house = House(servers)
    async with background(house.run()):
        assert await eventually(lambda: all(status.state == "ready" for status in house.statuses))
        yield house
    for server in servers:
        server.released.set()
        await server.stop()


async def ask(house: House) -> str:
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    return "".join([chunk.content async for chunk in house.big.chat(prompt, Sampling())])


async def test_a_call_of_a_server_that_hangs_is_repeated_on_another(house: House) -> None:
    house.servers[0].hangs = True
    assert [await ask(house) for _ in range(2)] == ["Hello from afar "] * 2
    assert await eventually(lambda: house.statuses[0].state == "unhealthy")
    before = house.chats()
    assert [await ask(house) for _ in range(3)] == ["Hello from afar "] * 3
    assert house.chats() == [before[0], before[1] + 3]
    house.servers[0].hangs = False
    assert await eventually(lambda: house.statuses[0].state == "ready")


async def test_a_call_of_a_server_that_answers_nothing_at_all_is_repeated_on_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_engine, "HEALTH_TIMEOUT_S", 0.1)
    house.servers[0].freezes = True
    assert [await ask(house) for _ in range(2)] == ["Hello from afar "] * 2
    assert await eventually(lambda: house.statuses[0].state == "unhealthy")
    house.servers[0].freezes = False
    assert await eventually(lambda: house.statuses[0].state == "ready")


async def test_a_call_that_hangs_after_a_token_fails(house: House) -> None:
    house.servers[0].holds = house.servers[1].holds = True
    call = asyncio.create_task(ask(house))
    assert await eventually(lambda: sum(house.chats()) == 1)
    for server in house.servers:
        server.hangs = True
    with pytest.raises(EngineBroke):
        await call
    assert sum(house.chats()) == 1


async def test_a_server_that_drains_gets_no_calls_and_loses_none(house: House) -> None:
    house.servers[1].status = 503
    assert [await ask(house) for _ in range(4)] == ["Hello from afar "] * 4
    assert await eventually(lambda: house.statuses[1].state == "unhealthy")
    house.servers[1].status = 200
    assert await eventually(lambda: house.statuses[1].state == "ready")


async def test_a_server_that_went_away_is_called_again_once_it_is_back(house: House) -> None:
    await house.servers[0].stop()
    assert [await ask(house) for _ in range(4)] == ["Hello from afar "] * 4
    assert await eventually(lambda: house.statuses[0].state == "unhealthy")
    assert str(house.big.status.reason).startswith("big-1: big-1 does not answer")
    await house.servers[0].start()
    assert await eventually(lambda: house.statuses[0].state == "ready")
    status = house.big.status
    assert (status.stage, status.reason) == ("ready", None)


def test_each_server_gets_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1")
    model: Any = RemoteModel(url=("http://a/v1", "http://b/v1"), max_model_len=64, key_file=tmp_path / "key")
    addresses = [client._address for client in backends.remote_engines("big", model).values()]
    assert [(each.base, each.key) for each in addresses] == [("http://a/v1", "sk-1"), ("http://b/v1", "sk-1")]
