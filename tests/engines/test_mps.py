"""CUDA's Multi-Process Service with a script in its daemon's place: it is ours, and ends with us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cappella.engines.mps import CONTROL, Mps
from cappella.errors import ConfigError
from support.fake_engines import eventually
from support.real_deployment import alive, wait_for
from support.stub_engine import environment

DAEMON = """#!/bin/sh
echo $$ > "$CUDA_MPS_PIPE_DIRECTORY/pid"
echo "$CUDA_MPS_LOG_DIRECTORY $*" > "$CUDA_MPS_PIPE_DIRECTORY/said"
exec sleep 600
"""


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / CONTROL).write_text(DAEMON)
    (folder / CONTROL).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


async def test_the_daemon_has_folders_of_its_own_and_ends_when_told(bin_folder: Path, tmp_path: Path) -> None:
    mps = Mps(tmp_path / "mps")
    await mps.start(dict(os.environ))
    said = tmp_path / "mps" / "pipes" / "said"
    assert await eventually(lambda: said.exists() and bool(said.read_text()), 5)
    assert said.read_text().strip() == f"{tmp_path}/mps/logs -f"
    assert mps.environment["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "mps" / "pipes")
    pid = int((said.parent / "pid").read_text())
    await mps.stop()
    assert not alive([pid])
    await mps.stop()


def test_kill_9_leaves_no_daemon(bin_folder: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; from cappella.engines.mps import Mps\n"
        "async def main():\n"
        "    await Mps(Path(sys.argv[1])).start(dict(os.environ)); await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    env = {**environment(tmp_path), "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mps")], env=env) as gateway:
        pid = tmp_path / "mps" / "pipes" / "pid"
        assert wait_for(lambda: pid.exists() and bool(pid.read_text()), 10)
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
    assert wait_for(lambda: not alive([int(pid.read_text())]), 5)


def test_a_machine_without_the_daemon_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"placement\.mps: there is no nvidia-cuda-mps-control"):
        Mps(tmp_path)
