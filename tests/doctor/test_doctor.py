"""`cappella doctor` over stub engines, with and without plugins that violate the seal."""

import json
import os
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cappella.doctor import checks
from cappella.placement import machine
from support.command_line import cappella
from support.network_namespace import NATIVE_VIOLATOR, PYTHON_VIOLATOR, QUIET_VIOLATOR, needs_namespaces
from support.python_overlay import doctor, overlay
from support.tool_server import command as tool_command
from support.weights_folder import write_model


def deployment(folder: Path, tools: Any = None, **server: Any) -> Path:
    model = {"weights": str(write_model(folder / "ann")), "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    ensemble = {"panel": ["ann"], "judge": "ann", "analysis": "off"}
    config = {
        "models": {"ann": model},
        "ensembles": {"default": ensemble},
        "server": {"port": 0, **server},
        "tools": tools or {},
    }
    path = folder / "c.yaml"
    path.write_text(json.dumps(config))
    return path


def sealed(folder: Path, plugin: str, before: str = "", **server: Any) -> tuple[int, dict[str, Any]]:
    """The exit code and report of a sealed trial with this plugin."""
    python = overlay(folder / "python", stub_vllm=True, plugin=plugin)
    done = doctor(python, str(deployment(folder, **server)), "--sealed", "--json", before=before)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@dataclass(frozen=True)
class Violated:
    """The report on an engine whose plugin violates the seal in every way; `outside` is a socket of another process."""

    code: int
    report: dict[str, Any]
    outside: str

    def attempts(self, seen_by: str) -> list[dict[str, Any]]:
        return [each for each in self.report["attempts"] if each["seen_by"] == seen_by]


@pytest.fixture(scope="module")
def violated(tmp_path_factory: pytest.TempPathFactory) -> Violated:
    """Made once: a trial takes 6 s of CPU time."""
    accepted: list[socket.socket] = []
    # A socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="outside-") as folder, socket.socket(socket.AF_UNIX) as outside:
        path = f"{os.path.realpath(folder)}/proxy.sock"
        outside.bind(path)
        outside.listen()
        threading.Thread(target=accept_all, args=(outside, accepted), daemon=True).start()
        code, report = sealed(tmp_path_factory.mktemp("violated"), every_violator(path))
        outside.shutdown(socket.SHUT_RDWR)
    for each in accepted:
        each.close()
    return Violated(code, report, path)


def every_violator(outside: str) -> str:
    """The three plugins as one, with the Python one first in the file."""
    quiet = QUIET_VIOLATOR.replace("address(", "bare_address(")
    parts = {"in_python": PYTHON_VIOLATOR, "natively": NATIVE_VIOLATOR, "quietly": quiet}
    defined = "".join(source.replace("register", name) for name, source in parts.items())
    calls = "".join(f"    {name}()\n" for name in parts)
    return f"{defined}\nPATH = {outside!r}\ndef register():\n{calls}"


@needs_namespaces
def test_python_attempts_of_an_engine_are_listed_with_their_origin(violated: Violated) -> None:
    assert violated.code == 3
    tried = {(each["what"], each["to"]): each for each in violated.attempts("guard")}
    for attempt in (("connect", "192.0.2.7:8125"), ("getaddrinfo", "telemetry.example")):
        assert tried[attempt]["by"].startswith("phone_home.py:6 in_python")
        assert "/ann " in tried[attempt]["process"]
    # The engine continues after a refusal, so the trial can still call it.
    assert [each["error"] for each in violated.report["asked"]] == [None, None]


@needs_namespaces
def test_native_attempts_and_open_listeners_are_listed(violated: Violated) -> None:
    assert violated.report["listening"] == ["0.0.0.0 port 4444"]
    native = {"seen_by": "kernel", "what": "connect", "to": "198.51.100.9:443", "times": 1}
    assert native in violated.report["attempts"]


@needs_namespaces
def test_sockets_of_processes_outside_and_packets_without_a_connect_are_listed(violated: Violated) -> None:
    assert {(each["what"], each["to"]) for each in violated.attempts("kernel")} == {
        ("connect", "198.51.100.9:443"),
        ("connect", violated.outside),
        ("open", "AF_VSOCK"),
        ("send TCP", "198.51.100.10:443"),
        ("ICMP type 0", "198.51.100.11"),
        ("ICMP type 13", "198.51.100.12"),
    }
    assert {(each["what"], each["to"]) for each in violated.attempts("guard")} == {
        ("connect", "192.0.2.7:8125"),
        ("getaddrinfo", "telemetry.example"),
        ("connect", violated.outside),
        ("connect", "<AddressFamily.AF_VSOCK: 40> (2, 5)"),
    }


def accept_all(listener: socket.socket, accepted: list[socket.socket]) -> None:
    with suppress(OSError):
        while True:
            accepted.append(listener.accept()[0])


@needs_namespaces
def test_an_address_of_may_reach_is_no_attempt(tmp_path: Path) -> None:
    code, report = sealed(
        tmp_path, PYTHON_VIOLATOR.replace("telemetry.example", "127.0.0.1:1"), may_reach=["192.0.2.7"]
    )
    assert (code, report["attempts"]) == (0, [])


@needs_namespaces
def test_tool_servers_that_try_to_connect_out_are_found_in_python_and_natively(tmp_path: Path) -> None:
    in_python = tool_command("connects")
    # Isolated from the variables of its environment, Python has no guard, as a program in another language.
    native = [in_python[0], "-I", *in_python[1:]]
    tools = {"small": {"command": in_python}, "native": {"command": native}, "good": {"command": tool_command()}}
    code, report = sealed(tmp_path, "def register(): pass\n", tools=tools)
    assert code == 3
    found = {(each["seen_by"], each["to"]) for each in report["attempts"]}
    assert found == {("guard", "192.0.2.77:443"), ("kernel", "192.0.2.77:443")}


@needs_namespaces
def test_a_stack_that_stays_inside_passes_with_keys_an_outward_address_and_a_model_that_writes_nothing(
    tmp_path: Path,
) -> None:
    kept: dict[str, Any] = {"audit": {"file": "audit.jsonl"}, "runs": {"file": "runs.sqlite"}}
    path = deployment(tmp_path, host="192.0.2.50", allow_open=True, keys="no-such-file", **kept)
    config = json.loads(path.read_text())
    weights = str(write_model(tmp_path / "emb"))
    config["models"]["emb"] = {"weights": weights, "max_model_len": 64, "kv_cache_bytes": "1MiB", "task": "embed"}
    path.write_text(json.dumps(config))
    done = doctor(overlay(tmp_path / "python", stub_vllm=True), str(path), "--sealed", "--json")
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert (done.returncode, report["namespace"], report["problem"]) == (0, True, "")
    assert (report["attempts"], report["listening"], report["unseen"]) == ([], [], 0)
    asked = {each["model"]: each["error"] for each in report["asked"]}
    assert asked == {"cappella/default": None, "ann": None, "emb": None}
    # The trial's own requests are not recorded, and a running server holds the audit log.
    assert not [*tmp_path.rglob("audit.jsonl*"), *tmp_path.rglob("runs.sqlite*")]


@needs_namespaces
def test_without_namespaces_the_report_says_that_only_the_guard_watched(tmp_path: Path) -> None:
    # Inside a user namespace, a limit of zero applies to its root as well.
    python = overlay(
        tmp_path / "python", stub_vllm=True, plugin=PYTHON_VIOLATOR + NATIVE_VIOLATOR.replace("register", "other")
    )
    inner = 'echo 0 > /proc/sys/user/max_net_namespaces\nexec "$@"'
    before = f"set -- unshare --user --map-root-user sh -c '{inner}' sh \"$@\""
    done = doctor(python, str(deployment(tmp_path)), "--sealed", before=before)
    assert "(unshare: No space left on device)" in done.stdout
    assert "only the guard watched" in done.stdout
    assert "Attempt: connect 192.0.2.7:8125 (refused by the guard" in done.stdout
    assert done.returncode == 3


def test_a_model_that_does_not_start_fails_the_trial(tmp_path: Path) -> None:
    code, report = sealed(tmp_path, "def register(): raise RuntimeError('no such device')")
    assert code == 1
    assert "no such device" in report["problem"]
    assert report["asked"] == []


def examined(config: Path, before: str = "") -> tuple[int, dict[str, dict[str, str]]]:
    done = (
        cappella("doctor", config, "--json")
        if not before
        else doctor(sys.executable, str(config), "--json", before=before)
    )
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


def test_a_suitable_machine_passes_all_checks(tmp_path: Path) -> None:
    code, found = examined(deployment(tmp_path))
    assert code == 0
    assert {check["level"] for check in found.values()} <= {"ok", "warn"}
    assert set(found) == {"Python", "vLLM", "GPUs", "weights of ann", "memory", "port", "/dev/shm", "open files"}


def test_gpus_are_named_by_their_kind_so_that_an_order_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # CUDA's own order begins with the fastest, and not with the first on the bus.
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(machine, "own_gpus", lambda: machine.described("L4,24GiB"))
    assert checks._gpus() == "GPU 0 (L4) 22.0 of 22.0 GiB, GPU 1 24.0 of 24.0 GiB"


def test_a_taken_port_fails_with_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        code, found = examined(deployment(tmp_path, port=holder.getsockname()[1]))
    assert (code, found["port"]["level"]) == (2, "fail")
    assert "--port" in found["port"]["hint"]


def test_missing_weights_fail_and_the_other_checks_still_run(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    (tmp_path / "ann" / "model.safetensors").unlink()
    code, found = examined(config)
    assert (code, found["weights of ann"]["level"]) == (2, "fail")
    assert "there is no .safetensors file" in found["weights of ann"]["found"]
    assert found["port"]["level"] == "ok"


def test_few_open_files_are_a_warning_with_the_command(tmp_path: Path) -> None:
    code, found = examined(deployment(tmp_path), before="ulimit -Sn 300")
    assert (code, found["open files"]["level"]) == (0, "warn")
    assert found["open files"]["hint"].startswith("ulimit -n ")


def test_too_little_memory_fails_with_what_would_fit(tmp_path: Path) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("1MiB", "9000GiB"))
    code, found = examined(config)
    assert (code, found["memory"]["level"]) == (2, "fail")


@pytest.mark.parametrize("option", [[], ["--sealed"]])
def test_a_config_typo_is_one_line_and_exit_code_2(tmp_path: Path, option: list[str]) -> None:
    config = deployment(tmp_path)
    config.write_text(config.read_text().replace("judge", "jugde"))
    done = cappella("doctor", config, *option)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
