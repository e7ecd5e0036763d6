"""What systemd hears of a real `cappella serve`, whose engines are stubs."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from cappella.gateway.systemd import Systemd
from support.python_overlay import overlay
from support.weights_folder import write_model

WATCHDOG_S = 0.3
PATIENCE_S = 60.0


@dataclass
class Manager:
    """The other end of the socket, and the service."""

    heard: socket.socket
    service: "subprocess.Popen[bytes]"

    def next(self) -> str:
        """What is said next. Raises TimeoutError after silence."""
        return self.heard.recv(4096).decode()

    def hears(self, wanted: Callable[[str], bool]) -> str:
        """The first that is wanted, however much else is said."""
        while not wanted(said := self.next()):
            pass
        return said


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + address[1:] if address.startswith("@") else address)
        heard.settimeout(PATIENCE_S)
        yield heard


@contextmanager
def managed(folder: Path) -> Iterator[Manager]:
    model = {"weights": str(write_model(folder / "ann")), "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    ensembles = {"default": {"panel": ["ann"], "judge": "ann", "analysis": "off"}}
    config = {"models": {"ann": model}, "ensembles": ensembles, "server": {"port": 0, "drain_s": 7}}
    (folder / "c.yaml").write_text(json.dumps(config))
    python = overlay(folder / "python", stub_vllm=True)
    command = [str(python), "-m", "cappella", "serve", str(folder / "c.yaml"), "--log-dir", str(folder / "logs")]
    asked = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    with listening(str(folder / "notify")) as heard, (folder / "serve.log").open("wb") as log:
        service = subprocess.Popen(command, env={**os.environ, **asked}, stderr=log)
        try:
            yield Manager(heard, service)
        finally:
            service.terminate()
            service.wait(PATIENCE_S)


def test_systemd_is_notified_of_readiness_reloads_and_the_stop(tmp_path: Path) -> None:
    with managed(tmp_path) as manager:
        ready = "READY=1\nSTATUS=Answers as cappella/default"
        assert manager.hears(lambda said: not said.startswith("WATCHDOG")) == ready
        manager.service.send_signal(signal.SIGHUP)
        assert manager.hears(lambda said: "RELOADING" in said).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert manager.hears(lambda said: "READY" in said) == ready
        manager.service.terminate()
        # What has 7 s to end, 5 s to be told, and the engines' own time.
        assert manager.hears(lambda said: "STOPPING" in said) == "STOPPING=1\nEXTEND_TIMEOUT_USEC=72000000"
        assert manager.service.wait(PATIENCE_S) == 0


def test_a_hung_gateway_sends_no_watchdog_notification(tmp_path: Path) -> None:
    with managed(tmp_path) as manager:
        assert [manager.hears(lambda said: said == "WATCHDOG=1") for _ in range(4)]
        os.kill(manager.service.pid, signal.SIGSTOP)
        manager.heard.settimeout(4 * WATCHDOG_S)
        with pytest.raises(TimeoutError):
            manager.hears(lambda said: False)
        os.kill(manager.service.pid, signal.SIGCONT)
        manager.heard.settimeout(PATIENCE_S)
        assert manager.hears(lambda said: said == "WATCHDOG=1")


@pytest.mark.parametrize("address", ["{folder}/notify", "@cappella-test-{pid}"])
def test_systemd_is_told_by_a_path_or_an_abstract_name(tmp_path: Path, address: str) -> None:
    address = address.format(folder=tmp_path, pid=os.getpid())
    with listening(address) as heard:
        Systemd.from_environment({"NOTIFY_SOCKET": address}).ready("Answers")
        assert heard.recv(100) == b"READY=1\nSTATUS=Answers"


def test_without_notify_socket_nothing_is_sent(tmp_path: Path) -> None:
    Systemd.from_environment({}).ready("Answers")
    Systemd.from_environment({"NOTIFY_SOCKET": str(tmp_path / "nowhere")}).ready("Answers")


@pytest.mark.parametrize("beats", [True, False])
async def test_watchdog_notifications_are_sent_only_if_requested(beats: bool) -> None:
    asked = os.getpid() if beats else 1
    with listening("@cappella-test-watchdog") as heard:
        heard.setblocking(False)
        told = {"NOTIFY_SOCKET": "@cappella-test-watchdog", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(asked)}
        async with Systemd.from_environment(told).watchdog():
            await asyncio.sleep(0)
            with nullcontext() if beats else pytest.raises(BlockingIOError):
                assert heard.recv(100) == b"WATCHDOG=1"
