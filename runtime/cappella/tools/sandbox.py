"""Runs Python that a model wrote: in a process with limits, without a network, in an empty folder."""

import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cappella.errors import ConfigError
from cappella.tools import child
from cappella.tools.child import Ended

SCRIPT = Path(__file__).with_name("confined.py")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one program: seconds on the clock and of CPU, bytes of memory and of all files, open files, processes of the user.

    The kernel does not limit the processes of root. `alone`: in namespaces, the program may start no process, only threads.
    `printed_bytes` are all that it may print before it is ended.
    """

    wall_s: float = 20.0
    cpu_s: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    open_files: int = 64
    processes: int = 64
    printed_bytes: int = 1 << 30
    alone: bool = False

    @property
    def arguments(self) -> list[str]:
        numbers = (self.cpu_s, self.memory_bytes, self.file_bytes, self.open_files, self.processes, int(self.alone))
        return [str(each) for each in numbers]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the program ran to its end; else the last line of its errors, or the limit that it met.

    `timed_out`: it took too long on the clock, which a busy machine may have done; a limit of CPU is the program's own.
    """

    passed: bool
    reason: str = ""
    timed_out: bool = False


class Sandbox:
    """Runs programs, each in namespaces of its own; with `unsafe` where the kernel gives none, with limits alone."""

    def __init__(self, limits: Limits = Limits(), namespaces: bool = True) -> None:
        self._limits = limits
        self._namespaces = namespaces

    @classmethod
    async def opened(cls, unsafe: bool, limits: Limits = Limits()) -> "Sandbox":
        """A sandbox that was tried. Raises ConfigError where the kernel gives no namespace and `unsafe` is not set."""
        confined = cls(limits)
        tried = await confined.run("pass")
        if tried.passed:
            return confined
        if unsafe:
            return cls(limits, namespaces=False)
        raise ConfigError(
            "the sandbox",
            f"this kernel does not confine a program ({tried.reason})",
            "Allow user namespaces, or run what models write with limits alone: --unsafe-code",
        )

    @property
    def name(self) -> str:
        return "namespaces and limits" if self._namespaces else "limits alone"

    async def run(self, program: str) -> Outcome:
        """Run a program. It has passed only if its last line was reached: an early exit is none."""
        mark = secrets.token_hex(16)
        source = f"{program}\nimport os, sys\nsys.stdout.flush()\nos.write(1, b'\\n{mark}')\n"
        ended = await self.execute(source)
        if ended.limit:
            return Outcome(False, ended.limit, ended.timed_out)
        if ended.code == 0 and mark.encode() in ended.printed:
            return Outcome(True)
        return Outcome(False, ended.last_error)

    async def execute(self, source: str) -> Ended:
        """Run a program to its end, or to a limit. Cancelling it ends the program."""
        with tempfile.TemporaryDirectory(prefix="cappella-sandbox-", ignore_cleanup_errors=True) as folder:
            command = [sys.executable, "-I", "-S", "-B", str(SCRIPT), *self._limits.arguments]
            command += ["namespaces"] if self._namespaces else []
            env = {"HOME": os.path.expanduser("~")}
            content = source.encode(errors="replace")
            return await child.run(command, content, folder, env, self._limits.wall_s, self._limits.printed_bytes)
