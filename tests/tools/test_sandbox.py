"""What a program that a model wrote can do: compute, within limits, and nothing else."""

import asyncio
import os
import socket
import sys
import tempfile
import venv
from pathlib import Path
from uuid import uuid4

import pytest

from cappella.errors import ConfigError
from cappella.tools import sandbox
from cappella.tools.sandbox import Limits, Outcome, Sandbox

QUICK = Limits(wall_s=20, cpu_s=1, memory_bytes=300 << 20, file_bytes=1 << 20)
from support.real_deployment import wait_for


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
        "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 1, bytes(120)) >= 0",
        "open('/dev/ttyS0')",
        "assert open('/etc/shadow').read()",
        "open(FILE)",
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


def test_a_unix_socket_in_a_folder_that_it_sees_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        listening.bind(path)
        listening.listen()
        script = tmp_path / "confined.py"
        script.write_text(
            sandbox.SCRIPT.read_text()
            .replace("needed = [", f"needed = [{folder!r}, *[")
            .replace("for name in OF_PREFIX]", "for name in OF_PREFIX]]")
        )
        monkeypatch.setattr(sandbox, "SCRIPT", script)
        seen = f"import os, stat\nassert stat.S_ISSOCK(os.stat({path!r}).st_mode)\n"
        assert ran(seen).passed
        outcome = ran(f"{seen}import socket\nsocket.socket(socket.AF_UNIX).connect({path!r})")
    assert not outcome.passed
    assert "PermissionError" in outcome.reason


def test_what_ordinary_programs_need_is_there() -> None:
    assert ran("import os\nassert set(os.listdir('/dev')) <= {'null', 'zero', 'urandom', 'shm'}").passed
    assert ran("open('/dev/null', 'w').write('x')\nassert open('/dev/urandom', 'rb').read(4)").passed
    assert ran("import json, decimal, tempfile, zlib\ntempfile.TemporaryFile().write(b'x')").passed
    assert ran("import asyncio\nasync def f(): return 3\nassert asyncio.run(f()) == 3").passed
    assert ran("import multiprocessing\nmultiprocessing.Lock()").passed


NEEDED_ALONE = """
import os, sys
python = {sys.base_prefix, sys.base_exec_prefix}
for folder, folders, files in os.walk("/"):
    folders[:] = [each for each in folders if os.path.join(folder, each) not in python]
    for name in files:
        path = os.path.join(folder, name)
        parts = path.split("/")[1:]
        assert parts[0] in ("bin", "lib", "lib32", "lib64") or parts[0] == "usr" and (
            parts[1] in ("bin", "lib", "lib32", "lib64")
            or parts[1:3] == ["share", "zoneinfo"]
            or parts[1] == "local" and parts[2] in ("bin", "lib")
        ) or path in ("/dev/null", "/dev/zero", "/dev/urandom", "/etc/localtime", "/etc/ld.so.cache"), path
"""


def test_it_sees_no_file_but_what_python_needs() -> None:
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        Path(folder, "mine").write_text("mine")
        assert "FileNotFoundError" in ran(f"open({str(Path(folder, 'mine'))!r})").reason
    outcome = ran(NEEDED_ALONE)
    assert outcome.passed, outcome.reason
    for path in ("/etc/passwd", "/etc/hostname", "/usr/local/etc", "/srv", "/opt", "/var/lib", "/root/.ssh", "/home"):
        assert ran(f"import os\nassert not os.path.exists({path!r})").passed


def test_it_writes_nowhere_but_in_its_own_folders() -> None:
    for path in ("/", "/etc", "/dev", "/proc", "/usr", "/var"):
        assert not ran(f"open({path + '/x'!r}, 'w')").passed
    assert ran("import os\nfor each in ('/tmp', '/var/tmp', '/dev/shm'):\n    open(each + '/x', 'w').write('y')").passed


@pytest.mark.parametrize("symlinks", [True, False])
def test_a_virtual_environment_among_temporary_files_works(
    symlinks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "own", symlinks=symlinks)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "bin" / "python"))
    assert ran("import json").passed
    assert not ran(f"open({str(tmp_path / 'own' / 'pyvenv.cfg')!r})").passed


def test_a_process_that_a_program_leaves_behind_ends_with_it() -> None:
    # A word of its own in its command line: other tests may run programs at the same time.
    word = uuid4().hex
    child = f"import time; time.sleep(600)  # {word}"
    left = f"import os, sys\nif os.fork() == 0:\n    os.setsid()\n    os.execv(sys.executable, ['python', '-c', {child!r}])"
    assert ran(left).passed
    assert wait_for(lambda: not any(word.encode() in command(pid) for pid in os.listdir("/proc") if pid.isdigit()), 30)


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
