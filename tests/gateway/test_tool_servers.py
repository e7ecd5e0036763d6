"""Tool servers of a gateway: they live with it, and the Machine page, the metrics and a reload know them."""

import sys
from pathlib import Path
from typing import Any

import aiohttp

from cappella.config import Config
from support.fake_engines import FakeEngines, gateway_config, serving
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
