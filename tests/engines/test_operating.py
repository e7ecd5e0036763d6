"""Operators' actions on engines: on stub processes, and through the gateway's API."""

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from cappella.engines import supervisor
from cappella.errors import ActionRefused, EngineError, UnknownEngine
from cappella.types import Prompt, Sampling
from support.fake_engines import eventually
from support.scripted_stack import Json, Stack, model, stack
from support.stub_lifecycle import Stub, gone, running_stub

HI = Prompt([{"role": "user", "content": "Hi"}])


async def answers(stub: Stub) -> bool:
    try:
        return [chunk async for chunk in stub.engine.chat(HI, Sampling())] != []
    except EngineError:
        return False


async def test_a_restart_does_not_count_as_a_crash(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.restart()
        assert stub.state == "restarting"
        assert await stub.ready()
        assert stub.group != group
        assert await eventually(lambda: gone(group))
        status = stub.engine.status
        assert (status.restarts, status.restarts_asked, status.reason) == (0, 1, None)


async def test_a_restart_ends_the_back_off_after_a_crash(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "crash", (60.0, 60.0)) as stub:
        assert await eventually(lambda: stub.engine.status.restarts == 1, 20)
        await stub.lifecycle.restart()
        assert await eventually(lambda: stub.engine.status.restarts == 2, 20)


async def test_a_stopped_engine_accepts_no_calls_until_it_is_woken(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.stop()
        assert (stub.state, stub.engine.status.accepts_requests) == ("stopped", False)
        assert await eventually(lambda: gone(group))
        assert not await answers(stub)
        # A swap does not wake it, either.
        await stub.lifecycle.wake()
        assert stub.state == "stopped"
        assert stub.lifecycle.actions == ("wake",)
        await stub.lifecycle.resume()
        assert await stub.ready()
        assert await answers(stub)
        assert (stub.engine.status.restarts, stub.engine.status.restarts_asked) == (0, 0)


async def test_calls_in_flight_fail_when_their_engine_is_stopped(tmp_path: Path) -> None:
    async with running_stub(tmp_path, "holds calls") as stub:
        assert await eventually(lambda: stub.engine.status.state == "loading", 20)
        assert await eventually(lambda: stub.engine.in_flight == 1, 20)
        await stub.lifecycle.stop()
        assert stub.engine.in_flight == 0
        assert stub.state == "stopped"


@pytest.mark.parametrize("mode", ["ok", "crash", "never up"])
async def test_a_start_can_be_called_off_at_any_moment(tmp_path: Path, mode: str) -> None:
    """At each of many moments of a start or a wait, and the engine comes up after it as if nothing had been."""
    for number in range(6):
        async with running_stub(tmp_path / str(number), mode, (0.05, 60.0)) as stub:
            await asyncio.sleep(0.12 * number)
            await stub.lifecycle.stop()
            await asyncio.sleep(0.05)
            assert (stub.state, stub.engine.status.remaining_s) == ("stopped", None)
            assert stub.lifecycle.process_group is None
            await stub.lifecycle.resume()
            assert await eventually(lambda s=stub: s.lifecycle.process_group is not None, 20)  # type: ignore[misc]
            assert mode != "ok" or await stub.ready()


async def test_in_sleep_mode_an_engine_keeps_its_process_when_it_is_stopped(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True) as stub:
        assert await stub.ready()
        group = stub.group
        await stub.lifecycle.stop()
        assert (stub.state, stub.free_bytes()) == ("stopped", 100)
        # Swaps leave it alone.
        await stub.lifecycle.sleep()
        await stub.lifecycle.wake()
        assert (stub.state, stub.group) == ("stopped", group)
        await stub.lifecycle.resume()
        assert (stub.state, stub.group) == ("ready", group)


async def test_resumed_while_swapped_out_an_engine_stays_asleep(tmp_path: Path) -> None:
    async with running_stub(tmp_path) as stub:
        assert await stub.ready()
        await stub.lifecycle.sleep()
        await stub.lifecycle.stop()
        assert stub.state == "stopped"
        await stub.lifecycle.resume()
        assert (stub.state, stub.lifecycle.process_group) == ("asleep", None)
        await stub.lifecycle.wake()
        assert stub.state == "ready"


async def test_the_end_of_a_stopped_process_is_no_crash(tmp_path: Path) -> None:
    async with running_stub(tmp_path, sleep_mode=True) as stub:
        assert await stub.ready()
        await stub.lifecycle.stop()
        async with stub.engine._http.get("http://engine/die"):
            pass
        assert await eventually(lambda: stub.lifecycle.process_group is None, 5)
        assert (stub.state, stub.engine.status.restarts) == ("stopped", 0)
        await stub.lifecycle.resume()
        assert await stub.ready()


async def post(found: Stack, path: str) -> tuple[int, Json]:
    async with aiohttp.ClientSession() as http, http.post(f"{found.url}/api/engines/{path}") as reply:
        return reply.status, await reply.json()


async def engines(found: Stack) -> Json:
    async with aiohttp.ClientSession() as http, http.get(f"{found.url}/api/machine") as reply:
        told: Json = (await reply.json())["engines"]
        return told


async def test_runs_go_on_without_a_stopped_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        asking = [asyncio.create_task(found.keep_asking(min_successful_responses=1)) for _ in range(4)]
        assert await eventually(lambda: len(found.replies) > 4, 10)
        status, told = await post(found, "bob/sleep")
        assert (status, told["state"]) == (202, "stopped")
        assert await eventually(lambda: found.supervisor.actions("bob") == ("wake",), 15)
        so_far = len(found.replies)
        assert await eventually(lambda: len(found.replies) > so_far + 8, 10)
        assert (await found.ask("bob"))[0] == 503
        assert (await post(found, "bob/wake"))[0] == 202
        assert await eventually(lambda: found.supervisor.statuses["bob"].state == "ready", 20)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # No run was lost, and those without bob say so.
        assert {status for status, _ in found.replies} == {200}
        assert {reply["fusion"]["status"] for _, reply in found.replies} >= {"ok", "single"}


async def test_a_failed_engine_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        for _ in range(2):
            assert await eventually(lambda: found.engine_processes["bob"] is not None, 10)
            group = found.engine_processes["bob"]
            (tmp_path / "modules" / "crash").touch()
            await found.supervisor.act("bob", "restart")
            assert await eventually(lambda: found.supervisor.statuses["bob"].state == "failed", 30)
            assert (await engines(found))["bob"]["actions"] == ["start"]
            (tmp_path / "modules" / "crash").unlink()
            assert (await post(found, "bob/start"))[1]["state"] == "restarting"
            assert await eventually(lambda: found.supervisor.statuses["bob"].state == "ready", 20)
            assert found.engine_processes["bob"] != group
        assert (await found.ask())[1]["fusion"]["status"] == "ok"


async def test_an_action_that_the_state_does_not_allow_is_refused_with_those_that_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        for action in ("start", "wake", "explode"):
            status, told = await post(found, f"ann/{action}")
            assert (status, told["error"]["code"]) == (409, "action_refused")
            assert told["error"]["message"].endswith("Possible now: restart, sleep.")
        status, told = await post(found, "cat/restart")
        assert (status, told["error"]["code"]) == (404, "engine_not_found")
        with pytest.raises(UnknownEngine, match="Known: ann, bob"):
            await found.supervisor.act("cat", "restart")
        await found.supervisor.act("ann", "sleep")
        with pytest.raises(ActionRefused):
            await found.supervisor.act("ann", "sleep")


async def test_a_stopped_engine_stays_stopped_through_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        await found.supervisor.act("bob", "sleep")
        found.config["models"]["cat"] = model()
        assert (await found.reload())["kept"] == ["ann", "bob"]
        told = await engines(found)
        assert {name: each["state"] for name, each in told.items()} == {
            "ann": "ready",
            "bob": "stopped",
            "cat": "ready",
        }
        assert json.dumps(told["bob"]["actions"]) == '["wake"]'


async def test_the_gateway_stops_even_if_its_engines_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.2)
    async with stack(tmp_path, monkeypatch) as found:
        groups = [group for group in found.engine_processes.values() if group]
        for group in groups:
            os.kill(group, signal.SIGSTOP)
        async with asyncio.timeout(10):
            await found.supervisor.stop()
        assert await eventually(lambda: all(map(gone, groups)), 5)
