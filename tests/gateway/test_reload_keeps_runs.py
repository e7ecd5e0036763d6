"""A reload takes nothing from what is under way: not its time, not its place, not its count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from cappella.config import Config
from cappella.gateway import drain, reload
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Json, Script

PATIENCE_S = 20.0
DRAIN_S = 0.01
HELD = Script(("a", "b"), ending="held")


class Gateway:
    """A gateway with next to no time to drain. A reload takes what `config` is by then."""

    http: aiohttp.ClientSession

    def __init__(self, config: Config) -> None:
        self.config = config

    async def ask(self, model: str = "cappella/default", **fields: Any) -> tuple[int, Json]:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
        async with self.http.post("/v1/chat/completions", json=body) as reply:
            return reply.status, await reply.json()

    async def reload(self) -> None:
        async with self.http.post("/api/reload") as reply:
            assert reply.status == 200, await reply.text()

    async def figures(self) -> str:
        async with self.http.get("/metrics") as reply:
            return await reply.text()


@asynccontextmanager
async def gateway(fake_engines: FakeEngines, config: Config) -> AsyncIterator[Gateway]:
    server = config.server.model_copy(update={"drain_s": DRAIN_S})
    found = Gateway(config.model_copy(update={"server": server}))
    async with (
        serving(fake_engines, found.config, lambda: found.config) as url,
        aiohttp.ClientSession(url) as found.http,
    ):
        yield found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old is cut as soon as it may be."""
    monkeypatch.setattr(reload, "LINGER_S", 0.0)


@pytest.mark.parametrize(
    "ensemble",
    [{}, {"deadline_s": 0.2, "presets": {"long": {"deadline_s": 60}}}, {"deadline_s": 0.2}],
    ids=["default", "preset", "request"],
)
async def test_a_run_keeps_its_own_deadline_through_a_reload(fake_engines: FakeEngines, ensemble: Json) -> None:
    fake_engines.let("ann", HELD)
    fake_engines.replaced = frozenset({"ann"})
    fusion = {"preset": "long"} if "presets" in ensemble else {"deadline_seconds": 60} if ensemble else {}
    async with gateway(fake_engines, gateway_config(analysis="off", quorum=3, **ensemble)) as found:
        under_way = asyncio.create_task(found.ask(fusion=fusion))
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1, PATIENCE_S)
        await found.reload()
        # By now it would have been cut twice over.
        await asyncio.sleep(20 * DRAIN_S)
        assert not fake_engines.ended_engines
        fake_engines.servers["ann"].released.set()
        status, reply = await under_way
        assert (status, reply["fusion"]["status"]) == (200, "ok")
        assert await eventually(lambda: fake_engines.ended_engines == ["ann"], PATIENCE_S)


async def test_a_run_past_its_deadline_is_cancelled_so_that_a_reload_ends(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "END_GRACE_S", -59.0)
    fake_engines.let("ann", HELD)
    fake_engines.replaced = frozenset({"ann"})
    async with gateway(fake_engines, gateway_config(analysis="off", quorum=3, deadline_s=60)) as found:
        under_way = asyncio.create_task(found.ask())
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1, PATIENCE_S)
        await found.reload()
        status, reply = await under_way
        assert (status, reply["error"]["code"]) == (503, "shutting_down")
        assert await eventually(lambda: fake_engines.ended_engines == ["ann"], PATIENCE_S)


async def test_a_reload_does_not_cancel_calls_to_kept_engines(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", HELD)
    async with gateway(fake_engines, gateway_config()) as found:
        under_way = asyncio.create_task(found.ask("ann", stream=True))
        assert await eventually(lambda: fake_engines.reloader.in_flight == 1, PATIENCE_S)
        await found.reload()
        await asyncio.sleep(20 * DRAIN_S)
        assert fake_engines.reloader.in_flight == 1
        fake_engines.servers["ann"].released.set()
        under_way.cancel()
        await asyncio.wait({under_way})


async def test_a_call_to_a_removed_engine_gets_the_drain_time(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(pause_s=60))
    fake_engines.replaced = frozenset({"ann"})
    async with gateway(fake_engines, gateway_config()) as found:
        under_way = asyncio.create_task(found.ask("ann"))
        assert await eventually(lambda: fake_engines.reloader.in_flight == 1, PATIENCE_S)
        await found.reload()
        status, reply = await under_way
        assert (status, reply["error"]["code"]) == (503, "shutting_down")


def small(**server: Any) -> Config:
    """Each engine takes one sequence, and so one run."""
    config = gateway_config(analysis="off", quorum=3)
    models = {name: model.model_copy(update={"max_num_seqs": 1}) for name, model in config.models.items()}
    return config.model_copy(update={"models": models, "server": config.server.model_copy(update=server)})


async def test_runs_on_kept_engines_count_against_their_capacity_after_a_reload(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", HELD)
    async with gateway(fake_engines, small()) as found:
        runs = [asyncio.create_task(found.ask()) for _ in range(3)]
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1, PATIENCE_S)
        await found.reload()
        runs += [asyncio.create_task(found.ask())]
        assert await eventually(
            lambda: fake_engines.reloader.state.admission.waiting["cappella/default"] == 3, PATIENCE_S
        )
        assert fake_engines.servers["ann"].running == 1
        assert 'cappella_waiting{name="cappella/default"} 3.0' in await found.figures()
        fake_engines.servers["ann"].released.set()
        assert {status for status, _ in await asyncio.gather(*runs)} == {200}


async def test_a_replaced_engine_of_the_same_name_has_its_whole_capacity(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", HELD)
    fake_engines.replaced = frozenset(fake_engines.engines)
    async with gateway(fake_engines, small()) as found:
        runs = [asyncio.create_task(found.ask()) for _ in range(2)]
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1, PATIENCE_S)
        await found.reload()
        runs += [asyncio.create_task(found.ask())]
        assert await eventually(lambda: fake_engines.servers["ann"].running == 2, PATIENCE_S)
        fake_engines.servers["ann"].released.set()
        assert {status for status, _ in await asyncio.gather(*runs)} == {200}


async def test_a_reload_does_not_reset_counters(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", HELD)
    async with gateway(fake_engines, small(max_waiting=1)) as found:
        runs = [asyncio.create_task(found.ask()) for _ in range(3)]
        done, under_way = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
        assert [(await task)[0] for task in done] == [429]
        await found.reload()
        assert 'cappella_queue_refused_total{name="cappella/default"} 1.0' in await found.figures()
        fake_engines.servers["ann"].released.set()
        assert {status for status, _ in await asyncio.gather(*under_way)} == {200}
