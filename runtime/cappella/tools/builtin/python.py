"""Runs Python programs of models in the sandbox, and tells what they printed."""

import signal
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cappella.errors import ConfigError
from cappella.tools.base import Details
from cappella.tools.builtin.base import MAX_WAIT_S, Arguments, BuiltinServer, Places, Refused
from cappella.tools.child import Ended
from cappella.tools.sandbox import Limits, Sandbox

MAX_PROGRAM_CHARS = 100_000
MAX_SHOWN_BYTES = 8 << 10
MAX_ERROR_BYTES = 2 << 10
MAX_AT_ONCE = 4
LIMITS = Limits(
    wall_s=20.0, cpu_s=10, memory_bytes=512 << 20, file_bytes=16 << 20, processes=64, printed_bytes=8 << 20, alone=True
)
_NOTEBOOK = Path(__file__).with_name("notebook.py")
_SIGNALS = {
    signal.SIGXCPU: f"It used more than {LIMITS.cpu_s} s of CPU time.",
    signal.SIGKILL: f"It used more than {LIMITS.cpu_s} s of CPU time, or more memory than there is.",
    signal.SIGXFSZ: f"It wrote a file of more than {LIMITS.file_bytes >> 20} MiB.",
    signal.SIGSEGV: "It crashed: it may have recursed too deep.",
}


class Program(Arguments):
    """Run a Python 3 program and get what it prints, or the value of its last line. Each run is new: no variables or files
    stay. Standard library only; no network, no other processes, no files but its own; 10 s of CPU, 512 MiB of memory."""

    program: Annotated[str, Field(max_length=MAX_PROGRAM_CHARS, description="The whole program, with its imports")]


class Python(BuiltinServer[Program]):
    """Runs programs, each in namespaces of its own; it serves only where the kernel gives them."""

    details = Details("namespaces and limits")

    def __init__(self, name: str, limits: Limits = LIMITS, max_wait_s: float = MAX_WAIT_S) -> None:
        super().__init__(name, {"run_python": Program})
        self._limits = limits
        self._sandbox: Sandbox | None = None
        self._places = Places(MAX_AT_ONCE, max_wait_s)

    async def _prepare(self) -> str | None:
        try:
            self._sandbox = await Sandbox.opened(unsafe=False, limits=self._limits)
        except ConfigError as error:
            return f"{error.problem}: allow user namespaces, or remove this tool"
        return None

    async def _answer(self, arguments: Program) -> str:
        assert self._sandbox
        source = f"{_NOTEBOOK.read_text(encoding='utf-8')}\nmain({arguments.program!r})\n"
        async with self._places.one():
            ended = await self._sandbox.execute(source)
        printed = _end_of(ended.printed, MAX_SHOWN_BYTES)
        if ended.code == 0 and not ended.limit:
            return printed or "The program ended and printed nothing: print what you want to know."
        raise Refused("\n".join(filter(None, (printed, _end_of(ended.errors, MAX_ERROR_BYTES), _why(ended)))))


def _why(ended: Ended) -> str:
    """What ended a program, where it did not say so itself."""
    if ended.limit:
        return f"It {ended.limit}, and was ended."
    # The sandbox's first process ends with the low byte of a signal's negative number.
    number = 256 - (ended.code or 0)
    told = _SIGNALS.get(signal.Signals(number)) if number in signal.valid_signals() else None
    return told or ("" if ended.errors else f"It ended with exit code {ended.code}.")


def _end_of(content: bytes, size: int) -> str:
    """The text, or its end with how much was left out before it."""
    text = content[-size:].decode(errors="replace").rstrip()
    return f"[only the end is shown]\n{text}" if len(content) > size else text
