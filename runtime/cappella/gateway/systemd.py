"""What systemd is told of us, if it started us with Type=notify; otherwise nobody is told anything."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress

from cappella.background import background

PULSES = 3
"""In the time after which systemd takes us for hung."""


class Systemd:
    """`told` is its socket's path, `watchdog_s` how long it waits for a sign of life; None is systemd that does not ask."""

    def __init__(self, told: str | None = None, watchdog_s: float | None = None) -> None:
        self._told = told
        self._watchdog_s = watchdog_s

    @classmethod
    def around(cls, environment: Mapping[str, str]) -> "Systemd":
        """The one that started the process with this environment."""
        asked_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = environment.get("WATCHDOG_USEC") if asked_us else None
        return cls(environment.get("NOTIFY_SOCKET"), int(watchdog_us) / 1e6 if watchdog_us else None)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # Type=notify-reload wants to know that this answers its own signal, not an earlier one.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """It may take so long, whatever the unit says."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """As long as this lasts, and the event loop turns, there is a sign of life."""
        async with background(self._beat(self._watchdog_s)) if self._watchdog_s else nullcontext():
            yield

    async def _beat(self, watchdog_s: float) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / PULSES)

    def _tell(self, *lines: str) -> None:
        if self._told is None:
            return
        path = "\0" + self._told[1:] if self._told.startswith("@") else self._told
        # A manager that does not listen is no reason to stop.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), path)
