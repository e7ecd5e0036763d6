"""A lifecycle over servers that no fork server of this machine has started."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cappella.engines import startup
from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.launcher import ServerProcess
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.spec import Backoff, EngineSpec
from cappella.engines.startup_log import StartupLog
from support.fake_engines import eventually
from support.scripted_engine import Script, ScriptedEngine


class RemoteProcess:
    """A server with no process group on this machine. `looks` counts how often somebody looked whether it runs."""

    process_group = starting_group = exit_code = None

    def __init__(self, log: Path, has_begun: bool = True) -> None:
        self.has_begun = has_begun
        self.looks = 0
        self.log = log
        self.startup_log = StartupLog(STARTUP_STAGES)
        self.ended = asyncio.Event()

    @property
    def running(self) -> bool:
        self.looks += 1
        return not self.ended.is_set()

    async def wait(self, timeout_s: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()

    async def stop(self, timeout_s: float | None = None) -> None:
        self.ended.set()

    async def kill(self) -> None:
        self.ended.set()

    def kill_group(self) -> None:
        self.ended.set()

    def mark_healthy(self) -> None:
        pass

    async def shorten_log(self) -> None:
        pass

    async def exit_reason(self) -> str:
        return "its node left the cluster"

    async def logged_error(self) -> str | None:
        return None

    def log_excerpt(self) -> list[str]:
        return []


class RemoteLauncher:
    def __init__(self, has_begun: bool = True) -> None:
        self._has_begun = has_begun
        self.launched: list[RemoteProcess] = []

    async def launch(self, arguments: Sequence[str], folder: Path, log: Path) -> ServerProcess:
        self.launched.append(RemoteProcess(log, self._has_begun))
        return self.launched[-1]

    async def close(self) -> None:
        pass


async def test_any_launcher_serves_a_lifecycle_which_restarts_what_ends(tmp_path: Path) -> None:
    server = ScriptedEngine("ann", lambda _: Script())
    engine = await server.start(tmp_path)
    launcher = RemoteLauncher()
    spec = EngineSpec([], tmp_path / "run", tmp_path / "ann.log", backoff=Backoff((0.01,)), health_interval_s=0.02)
    engine.status.state = "loading"
    lifecycle = Lifecycle(engine, launcher, spec, asyncio.Semaphore(1))
    task = asyncio.create_task(lifecycle.run())
    try:
        assert await eventually(lambda: engine.status.state == "ready")
        assert lifecycle.process_group is None
        launcher.launched[0].ended.set()
        assert await eventually(lambda: len(launcher.launched) == 2 and engine.status.state == "ready")
        assert engine.status.last_failure is not None
        assert engine.status.last_failure.reason == "process ended: its node left the cluster"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()
    assert not launcher.launched[1].running


async def test_the_wait_for_a_node_is_no_failed_start_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(startup, "POLL_S", 0.01)
    server = ScriptedEngine("ann", lambda _: Script())
    engine = await server.start(tmp_path)
    server.healthy = False
    launcher = RemoteLauncher(has_begun=False)
    spec = EngineSpec([], tmp_path / "run", tmp_path / "ann.log", backoff=Backoff(()), health_interval_s=0.02)
    engine.status.state = "loading"
    lifecycle = Lifecycle(engine, launcher, spec, asyncio.Semaphore(1))
    task = asyncio.create_task(lifecycle.run())
    try:
        assert await eventually(lambda: task.done() or any(each.looks > 5 for each in launcher.launched))
        assert engine.status.state == "loading"
        server.healthy = True
        assert await eventually(lambda: engine.status.state == "ready")
        assert len(launcher.launched) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()
