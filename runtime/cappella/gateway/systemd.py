"""Notifications to systemd, where it started this process with Type=notify; elsewhere none are sent."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress

from cappella.background import background

PINGS_PER_TIMEOUT = 3
"""Watchdog pings within the time after which systemd takes the process for hung."""


class Systemd:
    """The manager at `socket_path`; None sends nothing. `watchdog_s` is its watchdog's timeout, None without one."""

    def __init__(self, socket_path: str | None = None, watchdog_s: float | None = None) -> None:
        self._socket_path = socket_path
        self._watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Systemd":
        """The manager that started this process, as sd_notify(3) and sd_watchdog_enabled(3) describe it."""
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = environment.get("WATCHDOG_USEC") if is_for_us else None
        return cls(environment.get("NOTIFY_SOCKET"), int(watchdog_us) / 1e6 if watchdog_us else None)

    def ready(self, status: str) -> None:
        self._notify("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # Type=notify-reload compares the time with that of its own signal, so that no earlier reload answers it.
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """The process stops, and may take `within_s` to do so, whatever the unit's timeout."""
        self._notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    @asynccontextmanager
    async def watchdog(self) -> AsyncIterator[None]:
        """Pings systemd's watchdog, if it has one, while this context lasts and the event loop runs."""
        async with background(self._ping(self._watchdog_s)) if self._watchdog_s else nullcontext():
            yield

    async def _ping(self, watchdog_s: float) -> None:
        while True:
            self._notify("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / PINGS_PER_TIMEOUT)

    def _notify(self, *lines: str) -> None:
        if self._socket_path is None:
            return
        path = "\0" + self._socket_path[1:] if self._socket_path.startswith("@") else self._socket_path
        # A manager that does not listen is no reason to stop.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), path)
