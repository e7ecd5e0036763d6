"""Hostile Python programs: what the model is told, and that nothing outside the sandbox is touched."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from cappella.tools.base import ToolResult
from cappella.tools.builtin.python import LIMITS, Python
from cappella.tools.sandbox import Limits
from support.unharmed import unharmed

QUICK = Limits(
    wall_s=60, cpu_s=1, memory_bytes=300 << 20, file_bytes=1 << 20, printed_bytes=1 << 20, alone=LIMITS.alone
)
SYSCALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nKEYCTL = 250 if os.uname().machine == 'x86_64' else 219\n"
FAILED = "raise OSError(ctypes.get_errno(), 'refused')"


def started(limits: Limits) -> Python:
    server = Python("py", limits)

    async def ready() -> None:
        await server.start()
        await server.started()

    asyncio.run(ready())
    if server.problem:
        pytest.skip(server.problem)
    return server


@pytest.fixture(scope="module")
def server() -> Python:
    return started(QUICK)


async def ran(server: Python, program: str) -> ToolResult:
    return await server.call("run_python", {"program": program})


@pytest.mark.parametrize(
    ("program", "told"),
    [
        # The network, and services of this machine.
        ("import socket; socket.create_connection(('192.0.2.1', 80), 2)", "OSError"),
        ("import socket; socket.create_connection(('127.0.0.1', PORT), 2)", "OSError"),
        ("import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=2)", "URLError"),
        ("import socket; socket.getaddrinfo('example.org', 80)", "gaierror"),
        ("import socket; socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')", "PermissionError"),
        ("import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "PermissionError"),
        # Other processes.
        ("import os; os.kill(PARENT, 9)", "ProcessLookupError"),
        ("open('/proc/PARENT/environ').read()", "FileNotFoundError"),
        ("open('/proc/PARENT/mem', 'wb')", "FileNotFoundError"),
        (SYSCALL + "if libc.ptrace(16, PARENT, 0, 0): " + FAILED, "refused"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['/bin/sh', '-c', ':'])", "PermissionError"),
        ("import os; os.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
        ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "PermissionError"),
        # Files.
        ("open(PRECIOUS).read()", "FileNotFoundError"),
        ("open(PRECIOUS, 'w')", "Error"),
        ("import os; os.unlink(PRECIOUS)", "FileNotFoundError"),
        ("import os; os.symlink(PRECIOUS, 'link'); open('link', 'a')", "Error"),
        ("import shutil; shutil.rmtree('/usr')", "Read-only file system"),
        ("open('/etc/escaped', 'w')", "Read-only file system"),
        ("import os; os.listdir('/root/.ssh')", "FileNotFoundError"),
        ("open('/etc/shadow').read()", "FileNotFoundError"),
        ("open('/etc/passwd').read()", "FileNotFoundError"),
        ("open(THIS_FILE).read()", "FileNotFoundError"),
        ("import os; os.listdir('/old')", "FileNotFoundError"),
        ("import os; os.chmod(os.__file__, 0o666)", "Read-only file system"),
        # A way out of the namespaces.
        (SYSCALL + "if libc.unshare(0x10000000): " + FAILED, "refused"),
        (SYSCALL + "if libc.mount(b'none', b'/mnt', b'tmpfs', 0, None): " + FAILED, "refused"),
        (SYSCALL + "if libc.umount2(b'/tmp', 2): " + FAILED, "refused"),
        (SYSCALL + "if libc.syscall(425, 1, bytes(120)) < 0: " + FAILED, "refused"),
        ("import os; os.chroot('/')", "PermissionError"),
        (SYSCALL + "if libc.syscall(KEYCTL, 11, -3, bytes(99), 99) < 0: " + FAILED, "refused"),
        ("import os; os.setuid(0)", "Error"),
        # Too much of everything.
        ("x = [bytearray(10 << 20) for _ in range(1000)]", "MemoryError"),
        ("open('big', 'wb').write(bytes(8 << 20))", "File too large"),
        ("for i in range(10_000): open(f'f{i}', 'wb').write(bytes(500_000))", "No space left"),
        ("for i in range(10_000): open(f'f{i}', 'w')", "No space left"),
        ("kept = [open('/dev/null') for _ in range(1000)]", "Too many open files"),
        (
            "import threading, time\nfor i in range(5000): threading.Thread(target=time.sleep, args=(3,)).start()",
            "start new",
        ),
        ("while True: print('x' * 1000)", "printed more than"),
        ("import os\nwhile True: os.write(2, b'x' * 1000)", "printed more than"),
        ("while True: pass", "CPU time"),
        ("9 ** 9 ** 9", "CPU time"),
        ("import re; re.match('(a+)+$', 'a' * 60 + 'b')", "CPU time"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise ValueError('x' * 100_000)", "xxx"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import sys; sys.stdout.close(); 1", "Error"),
        ("(" * 90_000, "SyntaxError"),
    ],
)
async def test_a_hostile_program_fails_and_is_told_how(server: Python, program: str, told: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, unharmed(tmp_path) as precious:
        words = {
            "PARENT": str(os.getpid()),
            "PRECIOUS": repr(str(precious)),
            "THIS_FILE": repr(__file__),
            "PORT": str(listening.getsockname()[1]),
        }
        for word, meant in words.items():
            program = program.replace(word, meant)
        result = await ran(server, program)
    assert result.is_error
    assert told in result.text
    assert len(result.text.encode()) < 20_000


def test_a_program_that_waits_is_ended(tmp_path: Path) -> None:
    # The program with which the sandbox is tried has to end in this time.
    server = started(Limits(wall_s=8, alone=True))
    with unharmed(tmp_path):
        result = asyncio.run(ran(server, "import time; time.sleep(10_000)"))
    assert result.is_error
    assert "took more than 8 s" in result.text


async def test_a_program_that_is_given_up_ends(server: Python, tmp_path: Path) -> None:
    with unharmed(tmp_path):
        task = asyncio.create_task(server.call("run_python", {"program": "import time; time.sleep(10_000)"}))
        before = set(os.listdir("/proc"))
        while not any(pid.isdigit() for pid in set(os.listdir("/proc")) - before):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_program_that_leaves_a_thread_behind_ends_with_it(server: Python, tmp_path: Path) -> None:
    with unharmed(tmp_path):
        left = "import threading, time\nthreading.Thread(target=time.sleep, args=(9999,), daemon=True).start()\nprint('left')"
        assert await ran(server, left) == ToolResult("left")
