"""A load client that sends requests at a fixed rate, and times every answer and every rejection."""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from cappella.bench.gateway.client import Histogram, Load

TICK_S = 0.005
WARM_UP_SHARE = 0.2
"""Share of the time that is not measured, while the queue fills."""


class Tally:
    """Counts and times of the replies."""

    def __init__(self, from_ns: int, to_ns: int) -> None:
        self._from_ns, self._to_ns = from_ns, to_ns
        self.answered_in_time = 0
        self.answered, self.refused = Histogram(), Histogram()
        self.counts = {"asked": 0, "answered": 0, "refused": 0}
        self.errors: dict[str, int] = {}

    def note(self, status: bytes, ok: bool, taken_ns: int) -> None:
        if status == b"200" and ok:
            self.counts["answered"] += 1
            self.answered.add(taken_ns)
            self.answered_in_time += self._from_ns <= time.monotonic_ns() < self._to_ns
        elif status == b"429":
            self.counts["refused"] += 1
            self.refused.add(taken_ns)
        else:
            error = f"status {status.decode()}"
            self.errors[error] = self.errors.get(error, 0) + 1


class Connection(asyncio.Protocol):
    """A connection for one request at a time; between requests it is in `idle`."""

    def __init__(self, tally: Tally, idle: list["Connection"]) -> None:
        self._tally, self._idle = tally, idle
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._tally.note(b"lost", False, 0)
        elif self in self._idle:
            self._idle.remove(self)

    def ask(self, request: bytes, due_ns: int) -> None:
        self._due_ns, self._head, self._tail, self._ok, self.busy = due_ns, b"", b"", False, True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._head = self._head or data[:12]
        self._tail = (self._tail + data)[-4096:]
        self._ok = self._ok or b'"status":"ok"' in self._tail
        if self._tail.endswith(b"\r\n0\r\n\r\n" if self._head.endswith(b"200") else b"}}"):
            self._tally.note(self._head[9:], self._ok, time.monotonic_ns() - self._due_ns)
            self.busy = False
            self._idle.append(self)


async def drive(load: Load, rate: float, seconds: float) -> dict[str, Any]:
    """Send evenly spaced requests, then wait for those still in flight, which count."""
    loop = asyncio.get_running_loop()
    began_ns = time.monotonic_ns()
    ends_ns = began_ns + int(seconds * 1e9)
    tally = Tally(began_ns + int(WARM_UP_SHARE * seconds * 1e9), ends_ns)
    idle, connections = list[Connection](), list[Connection]()
    for number in range(int(rate * seconds)):
        due_ns = began_ns + int(number / rate * 1e9)
        while (early_ns := due_ns - time.monotonic_ns()) > 0:
            await asyncio.sleep(min(TICK_S, early_ns / 1e9))
        if not idle:
            _, connection = await loop.create_connection(lambda: Connection(tally, idle), "127.0.0.1", load.port)
            connections.append(connection)
            idle.append(connection)
        tally.counts["asked"] += 1
        idle.pop().ask(load.request()[1], due_ns)
    late_ns = time.monotonic_ns() - due_ns
    while any(c.busy and not c.transport.is_closing() for c in connections):
        await asyncio.sleep(TICK_S)
    return {
        "answered_per_s": round(tally.answered_in_time / (seconds * (1 - WARM_UP_SHARE)), 2),
        **tally.counts,
        "seconds": round((time.monotonic_ns() - began_ns) / 1e9, 2),
        "connections": len(connections),
        "client_late_ms": round(late_ns / 1e6, 1),
        "answered_ms": tally.answered.summary_ms(),
        "refused_ms": tally.refused.summary_ms(),
        "troubles": tally.errors,
    }


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    load = Load(options["port"], {"model": "cappella/default", "stream": True}, options["tokens"])
    print(json.dumps(uvloop.run(drive(load, options["rate"], options["seconds"]))))
