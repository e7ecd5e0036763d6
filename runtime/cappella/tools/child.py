"""Processes that answer once: they get their input, and end by themselves, at a limit of time or output, or when they are given up."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

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
    child = _Child(printed_bytes)
    transport, _ = await asyncio.get_running_loop().subprocess_exec(
        lambda: child,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=env,
        start_new_session=True,
    )
    limit = ""
    try:
        child.give(transport, content)
        async with asyncio.timeout(wall_s):
            await child.stopped.wait()
    except TimeoutError:
        limit = f"took more than {wall_s:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        child.close(transport)
        await child.gone.wait()
        transport.close()
    if child.too_much:
        return Ended(None, child.kept[1], child.kept[2], f"printed more than {printed_bytes:,} bytes")
    return Ended(transport.get_returncode(), child.kept[1], child.kept[2], limit, bool(limit))


class _Child(asyncio.SubprocessProtocol):
    """Keeps the ends of what a process prints. `stopped`: it has ended, or printed too much; `gone`: nothing of it is open."""

    def __init__(self, limit: int) -> None:
        self.kept = {1: b"", 2: b""}
        self.too_much = False
        self.stopped = asyncio.Event()
        self.gone = asyncio.Event()
        self._left = limit

    def give(self, transport: asyncio.SubprocessTransport, content: bytes) -> None:
        """Write its input, and close it."""
        # uvloop's transports derive from no class of asyncio's.
        stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        stdin.write(content)
        stdin.close()

    def close(self, transport: asyncio.SubprocessTransport) -> None:
        """Read no more: what it left behind may hold its output open."""
        for file in (0, 1, 2):
            if pipe := transport.get_pipe_transport(file):
                pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.kept[fd] = (self.kept[fd] + data)[-MAX_KEPT_BYTES:]
        self._left -= len(data)
        if self._left < 0:
            self.too_much = True
            self.stopped.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stopped.set()
        self.gone.set()
