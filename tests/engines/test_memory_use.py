"""What engines hold is told of their process groups, by the kernel or by the driver."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cappella.engines.memory_use import used_bytes
from cappella.errors import ConfigError
from cappella.placement import gpus

HOLDS = """
import subprocess, sys
held = b"x" * (int(sys.argv[1]) << 20)
child = subprocess.Popen([sys.executable, "-c", "import time; held = b'x' * (40 << 20); print(flush=True); time.sleep(600)"])
import time; time.sleep(600)
"""


@pytest.fixture
def group() -> Iterator[int]:
    """A process that holds 60 MiB, and one of its own that holds 40."""
    command = [sys.executable, "-c", HOLDS, "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        os.killpg(process.pid, 9)


def test_a_group_holds_what_all_its_processes_do(group: int) -> None:
    found = used_bytes({"ann": group, "bob": 2**22}, on_gpus=False)
    assert list(found) == ["ann"]
    assert 100 << 20 < found["ann"] < 160 << 20


def test_on_gpus_it_is_what_the_driver_says_of_those_processes(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "used_bytes", lambda: {group: 5 << 30, os.getpid(): 7 << 30})
    assert used_bytes({"ann": group}, on_gpus=True) == {"ann": 5 << 30}


def test_a_driver_that_does_not_tell_leaves_it_open(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[int, int]:
        raise ConfigError("this machine's GPUs", "the driver broke off", "See nvidia-smi")

    monkeypatch.setattr(gpus, "used_bytes", broken)
    assert used_bytes({"ann": group}, on_gpus=True) == {}
