"""Tool servers of a gateway: they live with it, and the Machine page, the metrics and a reload know them."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config import Config
from cappella.gateway import reload
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.scripted_engine import Script
from support.tool_server import command, serves, until


def with_tools(**tools: Any) -> Config:
    return Config.model_validate({**gateway_config().model_dump(exclude_unset=True), "tools": tools})


async def got(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url) as reply:
        assert reply.status == 200
        return await reply.text()


async def machine(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/machine") as reply:
        told: dict[str, Any] = (await reply.json())["tool_servers"]
        return told


async def test_the_machine_and_the_metrics_tell_of_tool_servers_and_their_calls(fake_engines: FakeEngines) -> None:
    config = with_tools(small={"command": command()}, broken={"command": command("ends")})
    async with serving(fake_engines, config) as url:
        servers = fake_engines.reloader.state.tool_servers
        await serves(servers["small"])
        await until(lambda: not servers["broken"].is_starting)
        await servers["small"].call("echo", {"text": "Hello."})
        await servers["small"].call("echo", {})
        told = await machine(url)
        metrics = await got(f"{url}/metrics")
    small = told["small"]
    assert (small["state"], small["problem"], small["calls"], small["failed"]) == ("ready", None, 2, 1)
    assert small["tools"][0] == "echo"
    assert small["confined_by"]
    assert told["broken"]["state"] == "down"
    assert "no settings found" in told["broken"]["problem"]
    assert 'cappella_tool_server_up{server="small"} 1.0' in metrics
    assert 'cappella_tool_server_up{server="broken"} 0.0' in metrics
    assert 'cappella_tool_calls_total{server="small"} 2.0' in metrics
    assert 'cappella_tool_calls_failed_total{server="small"} 1.0' in metrics


async def test_a_reload_exchanges_tool_servers_that_changed_and_keeps_others(fake_engines: FakeEngines) -> None:
    small, other = {"command": command()}, {"command": command("prints")}
    first, second = with_tools(small=small, gone=other), with_tools(small=small, added=other)
    async with serving(fake_engines, first, lambda: second) as url:
        before = fake_engines.reloader.state.tool_servers
        await serves(before["small"])
        async with aiohttp.ClientSession() as http, http.post(f"{url}/api/reload") as reply:
            assert reply.status == 200, await reply.text()
        after = fake_engines.reloader.state.tool_servers
        await serves(after["added"])
        assert list(after) == ["small", "added"]
        assert after["small"] is before["small"]
        await until(lambda: before["gone"].problem == "it is stopped")
        assert after["small"].problem is None
    assert after["added"].problem == "it is stopped"


async def test_a_server_that_cannot_be_started_does_not_keep_the_gateway_from_its_start(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    missing = {"command": [str(tmp_path / "none"), sys.executable]}
    async with serving(fake_engines, with_tools(missing=missing)) as url:
        await until(lambda: not fake_engines.reloader.state.tool_servers["missing"].is_starting)
        assert "install it" in (await machine(url))["missing"]["problem"]


async def test_what_a_reload_starts_is_not_ended_by_the_one_before(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "LINGER_S", 0.0)
    fake_engines.let("ann", Script(ending="held"))
    configs = [with_tools(), with_tools(slow={"command": command(str(tmp_path / "greets"))})]
    async with serving(fake_engines, gateway_config(), lambda: configs.pop(0)) as url, aiohttp.ClientSession() as http:
        reloader = fake_engines.reloader
        body = {"model": "ann", "messages": [{"role": "user", "content": "Hi"}]}
        under_way = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1)
        await reloader.reload()
        again = asyncio.create_task(reloader.reload())
        await until(lambda: any(server.is_starting for server in reloader.state.tool_servers._running))
        fake_engines.release()
        (await under_way).close()
        await until(lambda: not reloader._retirements)
        (tmp_path / "greets").touch()
        await again
        slow = reloader.state.tool_servers["slow"]
        await serves(slow)
    assert slow.problem == "it is stopped"


async def test_a_reload_that_is_given_up_ends_the_tool_servers_that_it_started(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    slow = with_tools(slow={"command": command(str(tmp_path / "never"))})
    async with serving(fake_engines, gateway_config(), lambda: slow):
        running = fake_engines.reloader.state.tool_servers._running
        reloading = asyncio.create_task(fake_engines.reloader.reload())
        await until(lambda: any(server.is_starting for server in running))
        (started,) = running
        reloading.cancel()
        await asyncio.wait({reloading})
        assert started.problem == "it is stopped"
