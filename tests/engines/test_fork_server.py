"""The fork server as a process of its own: one import for all engines, and nothing else shared."""

import asyncio
import errno
import gc
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from cappella.engines import log_rotation
from cappella.engines.process.process import EngineProcess, ForkServer
from support.fake_engines import eventually
from support.real_deployment import alive
from support.stub_engine import fork_server

# Says what it is, and stays until it is ended.
TELLS = """
import json, os, signal, sys, tempfile, threading
imported_by = os.getpid()
def main():
    facts = {"imported_by": imported_by, "arguments": sys.argv[1:], "session": os.getsid(0), "threads": threading.active_count(),
             "folder": tempfile.gettempdir(), "input": os.readlink("/proc/self/fd/0"), "open": len(os.listdir("/proc/self/fd")),
             "pid": os.getpid(), "children": str(signal.getsignal(signal.SIGCHLD))}
    print(json.dumps(facts), flush=True)
    signal.pause()
"""


class Hall:
    """A fork server with its engines, each in a folder below `path`."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.forks: ForkServer = fork_server(path / "modules", source)
        self.engines: dict[str, EngineProcess] = {}

    async def start(self, name: str, *arguments: str) -> EngineProcess:
        log = self.path / "logs" / f"{name}.log"
        self.engines[name] = await self.forks.launch(arguments, self.path / "run" / name, log)
        return self.engines[name]

    async def told(self, name: str) -> dict[str, Any]:
        """What the engine printed."""
        log = self.engines[name].log
        assert await eventually(lambda: log.read_text().endswith("\n"), 20)
        return dict(json.loads(log.read_text()))

    @property
    def pid(self) -> int:
        assert self.forks._process
        return self.forks._process.pid


@asynccontextmanager
async def hall(path: Path, source: str = TELLS) -> AsyncIterator[Hall]:
    made = Hall(path, source)
    try:
        yield made
    finally:
        await made.forks.close()
        for engine in made.engines.values():
            await engine.kill()


async def test_engines_share_one_import_and_no_more(tmp_path: Path) -> None:
    async with hall(tmp_path) as here:
        for name in ("ann", "bob"):
            await here.start(name, "--name", name)
        ann, bob = [await here.told(name) for name in ("ann", "bob")]
        assert ann["imported_by"] == bob["imported_by"] == here.pid
        assert (ann["arguments"], bob["arguments"]) == (["--name", "ann"], ["--name", "bob"])
        assert [ann["folder"], bob["folder"]] == [str(tmp_path / "run" / name) for name in ("ann", "bob")]
        sessions = {ann["session"], bob["session"], os.getsid(here.pid)}
        assert len(sessions) == 3
        for each in (ann, bob):
            assert (each["input"], each["threads"]) == ("/dev/null", 1)
            # Standard streams, and the folder that was listed: neither the gateway's line nor another engine's.
            assert each["open"] == 4
            assert each["children"] == str(signal.SIG_DFL)


async def test_stop_ends_one_engine_and_leaves_the_other(tmp_path: Path) -> None:
    async with hall(tmp_path) as here:
        ann, bob = await here.start("ann"), await here.start("bob")
        pids = [(await here.told(name))["pid"] for name in ("ann", "bob")]
        await asyncio.wait_for(ann.stop(), 20)
        assert alive(pids) == pids[1:]
        assert bob.running
        assert not (tmp_path / "run" / "ann").exists()


async def test_a_stop_has_an_end_though_the_guardian_does_nothing(tmp_path: Path) -> None:
    async with hall(tmp_path) as here:
        ann = await here.start("ann")
        pid = (await here.told("ann"))["pid"]
        assert ann.guardian_pid
        os.kill(ann.guardian_pid, signal.SIGSTOP)
        async with asyncio.timeout(20):
            await ann.stop(timeout_s=0.1)
        assert not ann.running
        assert await eventually(lambda: not alive([pid]), 5)


async def test_engines_outlive_a_killed_fork_server_and_the_next_engine_gets_a_new_one(tmp_path: Path) -> None:
    async with hall(tmp_path) as here:
        ann = await here.start("ann")
        old = (await here.told("ann"))["imported_by"]
        os.kill(old, signal.SIGKILL)
        assert here.forks._process
        await here.forks._process.wait()
        await here.start("bob")
        assert (await here.told("bob"))["imported_by"] == here.pid != old
        assert ann.running


async def test_an_import_that_fails_is_told_in_the_engines_own_log(tmp_path: Path) -> None:
    async with hall(tmp_path, "raise ImportError('libcuda.so.1 is missing')") as here:
        for name in ("ann", "bob"):
            engine = await here.start(name)
            await asyncio.wait_for(engine.wait(), 20)
            assert await engine.exit_reason() == "ImportError: libcuda.so.1 is missing (exit code 1)"
            assert engine.log.name == f"{name}.log"


async def test_an_import_that_crashes_is_told_from_the_fork_servers_log(tmp_path: Path) -> None:
    crash = "import os\nprint('Illegal instruction', flush=True)\nos._exit(132)"
    async with hall(tmp_path, crash) as here:
        engine = await here.start("ann")
        await asyncio.wait_for(engine.wait(), 20)
        assert await engine.exit_reason() == "Illegal instruction"


async def test_an_engine_that_is_ended_during_the_import_never_begins(tmp_path: Path) -> None:
    async with hall(tmp_path, f"import time\ntime.sleep(1)\n{TELLS}") as here:
        ann = await here.start("ann")
        await ann.kill()
        await here.start("bob")
        await here.told("bob")
        assert (tmp_path / "logs" / "ann.log").read_text() == ""


@pytest.mark.parametrize("failing", ["fork-server.log", "ann.log"])
async def test_a_start_on_a_full_disk_leaves_no_socket_open_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(path: Path) -> BinaryIO:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    create = log_rotation.create
    async with hall(tmp_path) as here:
        with monkeypatch.context() as patch:
            patch.setattr(log_rotation, "create", lambda path: (full if path.name == failing else create)(path))
            with pytest.raises(OSError, match="No space left"):
                await here.start("ann")
        await here.start("ann")
        await here.told("ann")
    # Tells of what was not closed, as a warning.
    gc.collect()


async def test_closing_the_fork_server_ends_what_still_waits_for_it(tmp_path: Path) -> None:
    async with hall(tmp_path, "import time\ntime.sleep(600)") as here:
        ann = await here.start("ann")
        stopping = asyncio.create_task(ann.stop())
        await here.forks.close()
        await asyncio.wait_for(stopping, 20)


async def test_a_servers_exit_code_and_traceback_are_its_own(tmp_path: Path) -> None:
    async with hall(tmp_path, "def main():\n    raise ValueError('no such head size')") as here:
        engine = await here.start("ann")
        await asyncio.wait_for(engine.wait(), 20)
        assert await engine.exit_reason() == "ValueError: no such head size (exit code 1)"
        assert "ended with exit code 1" in engine.log.read_text()
