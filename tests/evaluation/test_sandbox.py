"""What a program that a model wrote can do: compute, within limits, and nothing else."""

import asyncio
import os
from pathlib import Path

import pytest

from cappella.errors import ConfigError
from cappella.evaluation import sandbox
from cappella.evaluation.sandbox import Limits, Outcome, Sandbox

QUICK = Limits(wall_s=20, cpu_s=1, memory_bytes=300 << 20, file_bytes=1 << 20)


def confined() -> Sandbox:
    try:
        return asyncio.run(Sandbox.opened(unsafe=False, limits=QUICK))
    except ConfigError as error:
        pytest.skip(str(error))


def ran(program: str, box: Sandbox | None = None) -> Outcome:
    return asyncio.run((box or confined()).run(program))


def test_a_program_passes_if_it_reaches_its_end() -> None:
    assert ran("assert 1 + 1 == 2").passed
    assert ran("assert 1 + 1 == 3").reason == "AssertionError"
    assert not ran("import sys; sys.exit(0)").passed
    assert not ran("def f(:").passed


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        "import os; os.kill(PARENT, 9)",
        "open('/proc/PARENT/environ')",
        "open(FILE, 'w')",
        "import os; os.unlink(FILE)",
        "while True: pass",
        "x = bytearray(1 << 30)",
        "open('big', 'wb').write(bytes(2 << 20))",
        "kept = [open('/dev/null') for _ in range(100)]",
        "import ctypes\nassert ctypes.CDLL(None).umount2(b'/proc', 2) == 0",
    ],
)
def test_what_a_program_may_not_do_fails(program: str, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("mine")
    outcome = ran(program.replace("PARENT", str(os.getpid())).replace("FILE", repr(str(file))))
    assert not outcome.passed
    assert file.read_text() == "mine"


def test_it_sees_an_empty_folder_no_environment_and_no_other_process() -> None:
    assert ran(
        "import os\nassert os.listdir('.') == []\nassert dict(os.environ).keys() <= {'LC_CTYPE'}\nopen('x', 'w').write('y')"
    ).passed
    assert ran("import os\nassert os.getpid() == 1\nassert os.listdir('/proc') == []").passed


def test_a_process_that_a_program_leaves_behind_ends_with_it() -> None:
    left = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\n    os._exit(0)"
    assert ran(left).passed
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"confined.py" in command(pid)]


def command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_much_output_is_no_error() -> None:
    assert ran("print('x' * (4 << 20))").passed


def test_without_namespaces_it_refuses_unless_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "confined.py"
    source = sandbox.SCRIPT.read_text().replace('    _call("unshare", NEW_NAMESPACES)', '    raise OSError("not here")')
    script.write_text(source)
    monkeypatch.setattr(sandbox, "SCRIPT", script)
    with pytest.raises(ConfigError, match="--unsafe-code"):
        asyncio.run(Sandbox.opened(unsafe=False))
    unsafe = asyncio.run(Sandbox.opened(unsafe=True, limits=QUICK))
    assert unsafe.name == "limits alone"
    assert ran("assert True", unsafe).passed
    assert not ran("while True: pass", unsafe).passed
