"""The guardian process: whichever process ends first, none is left."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.real_deployment import alive, wait_for
from support.stub_engine import environment

CHILDREN = """
import os, subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), inner.pid, flush=True)
"""
SLEEP = CHILDREN + "time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
SLOW = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('saved', flush=True), exit()))\n"
    + SLEEP
)
GRACE_S = 0.5


@contextmanager
def guarded(
    folder: Path, script: str, before: str = "", control: int = subprocess.PIPE, grace_s: float = GRACE_S
) -> Iterator["subprocess.Popen[bytes]"]:
    """A guardian with a short grace, and a script in the engine's place."""
    folder.mkdir(parents=True)
    code = f"import cappella.engines.process.guardian as g, sys; g.GRACE_S = {grace_s}\n{before}\ng.fork_server_process(sys.argv[1]); exec(sys.argv[2])"
    guardian = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), script],
        stdin=control,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder),
        start_new_session=True,
    )
    with guardian:
        try:
            yield guardian
        finally:
            with suppress(ProcessLookupError):
                os.killpg(guardian.pid, signal.SIGKILL)


def pids(guardian: "subprocess.Popen[bytes]") -> list[int]:
    """The process ids that the server printed: its own and its child's."""
    assert guardian.stdout
    return [int(word) for word in guardian.stdout.readline().split()]


# A thread like OpenBLAS's: the kernel delivers a signal to any thread that does not block it.
TAKES_SIGNALS = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM])
"""


@pytest.mark.parametrize("script", [SLEEP, STUBBORN], ids=["polite", "stubborn"])
@pytest.mark.parametrize("end", ["pipe", "sigterm"])
def test_the_end_of_the_gateway_ends_server_and_children(tmp_path: Path, script: str, end: str) -> None:
    folder = tmp_path / "run" / "ann"
    with guarded(folder, script) as guardian:
        children = pids(guardian)
        assert len(alive(children)) == 2
        if end == "pipe":
            assert guardian.stdin
            guardian.stdin.close()
        else:
            guardian.terminate()
        guardian.wait(timeout=20)
        assert wait_for(lambda: not alive(children), 5), alive(children)
        assert not folder.parent.exists()


def test_a_server_has_time_to_end_in_order(tmp_path: Path) -> None:
    with guarded(tmp_path / "run" / "ann", SLOW, grace_s=60) as guardian:
        children = pids(guardian)
        guardian.terminate()
        assert guardian.stdout
        assert guardian.stdout.read() == b"saved\n"
        guardian.wait(timeout=20)
        assert wait_for(lambda: not alive(children), 5), alive(children)


@pytest.mark.parametrize("end", ["pipe", "sigterm", "server"])
def test_a_signal_that_another_thread_takes_ends_the_guardian_all_the_same(tmp_path: Path, end: str) -> None:
    script = SLEEP if end != "server" else CHILDREN + "time.sleep(0.2)"
    with guarded(tmp_path / "run" / "ann", script, TAKES_SIGNALS) as guardian:
        children = pids(guardian)
        if end == "pipe":
            assert guardian.stdin
            guardian.stdin.close()
        elif end == "sigterm":
            guardian.terminate()
        guardian.wait(timeout=20)
        assert wait_for(lambda: not alive(children), 5), alive(children)


def test_a_gateway_that_ends_without_reading_what_the_guardian_wrote_takes_the_server_along(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with guarded(tmp_path / "run" / "ann", SLEEP, "import os; os.write(0, b'7')", theirs.fileno()) as guardian:
        theirs.close()
        children = pids(guardian)
        ours.close()
        guardian.wait(timeout=20)
        assert wait_for(lambda: not alive(children), 5), alive(children)


def test_a_server_that_dies_takes_its_children_along_and_its_exit_code_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "ann"
    with guarded(folder, CHILDREN + "sys.exit(7)") as guardian:
        children = pids(guardian)
        assert guardian.stderr
        log = guardian.stderr.read().decode()
        guardian.wait(timeout=10)
    assert "ended with exit code 7" in log
    assert wait_for(lambda: not alive(children), 5), alive(children)
    assert not folder.exists()


def test_kill_9_of_the_guardian_ends_the_server(tmp_path: Path) -> None:
    with guarded(tmp_path / "run" / "ann", SLEEP) as guardian:
        server, _ = pids(guardian)
        guardian.kill()
        guardian.wait(timeout=10)
        assert wait_for(lambda: not alive([server]), 5)


def test_other_engines_folders_stay(tmp_path: Path) -> None:
    other = tmp_path / "run" / "bob"
    other.mkdir(parents=True)
    with guarded(tmp_path / "run" / "ann", "raise SystemExit(0)") as guardian:
        guardian.wait(timeout=20)
    assert other.is_dir()
    assert not (tmp_path / "run" / "ann").exists()
