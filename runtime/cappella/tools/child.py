"""Processes that answer once: they get their input, and end by themselves, at a limit of time or output, or when they are given up."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_KEPT_BYTES = 1 << 16
"""What is kept of each stream, from its end."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code, the ends of what it printed and of its errors, and the limit that it met."""

    code: int | None
    printed: bytes = b""
    errors: bytes = b""
    limit: str = ""
    timed_out: bool = False

    @property
    def last_error(self) -> str:
        lines = self.errors.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"ended early, with exit code {self.code}"


async def run(
    command: Sequence[str],
    content: bytes,
    folder: Path | str,
    env: Mapping[str, str],
    wall_s: float,
    printed_bytes: int,
) -> Ended:
    """Run a process of its own session with this input. Nothing of the session is left when this returns or is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=env,
        start_new_session=True,
    )
    try:
        return await _ended(process, content, wall_s, printed_bytes)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _ended(process: asyncio.subprocess.Process, content: bytes, wall_s: float, printed_bytes: int) -> Ended:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    tails = [_Tail(process.stdout, printed_bytes), _Tail(process.stderr, printed_bytes)]
    code, limit, timed_out = None, "", False
    reading = asyncio.gather(_give(process.stdin, content), *(tail.read() for tail in tails))
    try:
        async with asyncio.timeout(wall_s):
            await reading
            code = await process.wait()
    except TimeoutError:
        limit, timed_out = f"took more than {wall_s:g} s", True
    except _TooMuch:
        limit = f"printed more than {printed_bytes:,} bytes"
    return Ended(code, tails[0].kept, tails[1].kept, limit, timed_out)


class _TooMuch(Exception):
    pass


async def _give(stream: asyncio.StreamWriter, content: bytes) -> None:
    with suppress(OSError):
        stream.write(content)
        await stream.drain()
        stream.close()


class _Tail:
    """The end of a stream, which may have so many bytes in all."""

    def __init__(self, stream: asyncio.StreamReader, limit: int) -> None:
        self.kept = b""
        self._stream = stream
        self._left = limit

    async def read(self) -> None:
        while block := await self._stream.read(MAX_KEPT_BYTES):
            self.kept = (self.kept + block)[-MAX_KEPT_BYTES:]
            self._left -= len(block)
            if self._left < 0:
                raise _TooMuch
