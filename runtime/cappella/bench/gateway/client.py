"""A load client with a fixed number of streamed runs in flight; times every token on arrival."""

import asyncio
import json
import re
import sys
import time
from typing import Any

import orjson
import uvloop

TOKEN = re.compile(rb"@(\d{15}) ")
PROMPT = "Please count upwards, and say for each number when it was said. " * 12


class Histogram:
    """Counts of times in steps of 10 microseconds, in constant memory."""

    STEP_NS = 10_000

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, value_ns: int) -> None:
        step = value_ns // self.STEP_NS
        self._counts[step] = self._counts.get(step, 0) + 1

    def summary_ms(self) -> dict[str, float]:
        """Median, 95th and 99th percentile, maximum."""
        total, seen, out = sum(self._counts.values()), 0, {}
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        for step in sorted(self._counts):
            seen += self._counts[step]
            for name, share in shares.items():
                if name not in out and seen >= share * total:
                    out[name] = round(step * self.STEP_NS / 1e6, 2)
        return out


class Load:
    """The measurements of all connections."""

    def __init__(self, port: int, body: dict[str, Any], tokens: int) -> None:
        self.port, self.tokens = port, tokens
        self.latency, self.jitter, self.first = Histogram(), Histogram(), Histogram()
        self.runs: list[tuple[int, int, int]] = []
        self.errors: dict[str, int] = {}
        self.received_tokens = 0
        self._body = body
        self._requests = 0
        self.measured_from_ns = self.ends_ns = 0

    def request(self) -> tuple[int, bytes]:
        self._requests += 1
        messages = [{"role": "user", "content": f"run={self._requests}; {PROMPT}"}]
        body = orjson.dumps({**self._body, "messages": messages})
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d"
        return self._requests, head % len(body) + b"\r\n\r\n" + body


class Slot(asyncio.Protocol):
    """One connection that sends one run after another until the load ends."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._count_error("connection lost")
            self.done.set_result(None)

    def _ask(self) -> None:
        self._run, request = self._load.request()
        self._began_ns, self._rest, self._tokens = time.monotonic_ns(), b"", 0
        self._last_ns = self._last_sent_ns = 0
        self._ok = self._has_done_event = False
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        load = self._load
        if not self._last_ns and not self._rest and now_ns > load.measured_from_ns:
            load.first.add(now_ns - self._began_ns)
        data = self._rest + data
        end = data.rfind(b"\n\n") + 2  # of the last complete event
        self._rest = data[end - 2 :] if end > 1 else data
        for stamp in TOKEN.findall(data, 0, max(end, 0)):
            sent_ns = int(stamp)
            self._tokens += 1
            if now_ns > load.measured_from_ns:
                load.received_tokens += 1
                load.latency.add(now_ns - sent_ns)
                if self._last_ns:
                    load.jitter.add(now_ns - self._last_ns - (sent_ns - self._last_sent_ns))
            self._last_ns, self._last_sent_ns = now_ns, sent_ns
        self._ok = self._ok or b'"status":"ok"' in data
        self._has_done_event = self._has_done_event or b"data: [DONE]\n\n" in data
        if self._has_done_event and data.endswith(b"\r\n0\r\n\r\n"):
            self._end(now_ns)
        elif not data.startswith((b"HTTP/1.1 200", b"\n\n")) or b'"error"' in data:
            self._count_error(data[:80].decode(errors="replace"))
            self._transport.close()

    def _end(self, now_ns: int) -> None:
        load = self._load
        if self._tokens != load.tokens:
            self._count_error(f"{load.tokens - self._tokens} tokens lost")
        if not self._ok:
            self._count_error("not ok")
        if self._began_ns > load.measured_from_ns:
            load.runs.append((self._run, self._began_ns, now_ns))
        if now_ns < load.ends_ns:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _count_error(self, error: str) -> None:
        self._load.errors[error] = self._load.errors.get(error, 0) + 1


async def drive(load: Load, count: int, ramp_s: float, seconds: float) -> dict[str, Any]:
    """Start the runs spread over a ramp, so that they are in different phases; measure after twice the ramp."""
    loop = asyncio.get_running_loop()
    now_ns = time.monotonic_ns()
    load.measured_from_ns = now_ns + int(2 * ramp_s * 1e9)
    load.ends_ns = load.measured_from_ns + int(seconds * 1e9)
    slots: list[Slot] = []
    for number in range(count):
        await asyncio.sleep(ramp_s * (number + 1) / count - (time.monotonic_ns() - now_ns) / 1e9)
        _, slot = await loop.create_connection(lambda: Slot(load), "127.0.0.1", load.port)
        slots.append(slot)
    await asyncio.gather(*(slot.done for slot in slots))
    return {
        "seconds": (time.monotonic_ns() - load.measured_from_ns) / 1e9,
        "tokens": load.received_tokens,
        "first_byte_ms": load.first.summary_ms(),
        "latency_ms": load.latency.summary_ms(),
        "jitter_ms": load.jitter.summary_ms(),
        "runs": load.runs,
        "troubles": load.errors,
    }


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    load = Load(options["port"], {"model": "cappella/default", "stream": True, **options["body"]}, options["tokens"])
    print(json.dumps(uvloop.run(drive(load, options["runs"], options["ramp_s"], options["seconds"]))))
