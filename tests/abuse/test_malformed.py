"""Malformed requests of two keys at once: nothing breaks, and neither internals nor the other key's data leak.

Ten thousand, in half a minute on two idle cores; `CAPPELLA_MALFORMED=100000` sends as many.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

import cappella
from cappella.auth.keys import KeyStore
from support.bad_http import RawRequest
from support.fake_engines import FakeEngines, eventually
from support.malformed_requests import malformed
from support.request_samples import good
from support.scripted_engine import Json, Script
from support.strict_gateway import make_strict

COUNT = int(os.environ.get("CAPPELLA_MALFORMED", "1000"))
AT_ONCE = 12
PATIENCE_S = 30
ROOT = Path(__file__).parents[2]
TOLD = re.compile(rb'Traceback|File "|site-packages|\.sock|sqlite|raise \w+Error')
RUN_ID = re.compile(rb"(?:run-|resp_|msg_|fc_)([0-9a-f]{24})")
# 500 is always wrong. 501 and 505 would come from uvicorn, the others from the gateway.
RIGHT = {100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 417, 421, 429, 431, 502}


@dataclass
class Client:
    """A client with a key, and the replies that it got."""

    name: str
    key: str
    secret: str
    statuses: Counter[int] = field(default_factory=Counter)
    replies: list[bytes] = field(default_factory=list)

    @property
    def run_ids(self) -> set[bytes]:
        return {found for reply in self.replies for found in RUN_ID.findall(reply)}


@dataclass(frozen=True)
class AttackedGateway:
    port: int
    process: asyncio.subprocess.Process

    @property
    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def answer(self, wire: bytes, patience_s: float = PATIENCE_S) -> bytes:
        """The reply until the connection closes, or nothing arrives for `patience_s`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        reply = bytearray()
        try:
            writer.write(wire)
            while part := await asyncio.wait_for(reader.read(1 << 20), patience_s):
                reply += part
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.transport.abort()
        return bytes(reply)


@pytest.fixture
async def attacked(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[AttackedGateway]:
    for name, server in make_strict(fake_engines).servers.items():
        fake_engines.let(name, _echoing(server.script, server.bodies, server.raw))
    path = os.pathsep.join((str(ROOT / "runtime"), str(ROOT / "tests")))
    with (tmp_path / "gateway.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "tests" / "support" / "attacked_gateway.py"), str(tmp_path)),
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    yield AttackedGateway(int(await process.stdout.readline()), process)
    if process.returncode is None:
        process.terminate()
    await process.wait()


def _echoing(strictly: Callable[[Json], Script], bodies: list[Json], raw: list[bytes]) -> Callable[[Json], Script]:
    """A script that echoes the request, so that leaks into other replies are visible."""

    def script(body: Json) -> Script:
        bodies.clear()
        raw.clear()
        answer = strictly(body)
        told = json.dumps(body, ensure_ascii=False)
        return answer if answer.refuse or "Now compare" in told else Script((told[:600],))

    return script


async def _send(attacked: AttackedGateway, client: Client, raw: RawRequest) -> None:
    # An incomplete body gets no reply.
    reply = await attacked.answer(raw.wire(client.key), PATIENCE_S if raw.framing is None else 0.3)
    client.replies.append(reply)
    for status in re.findall(rb"^HTTP/1.1 (\d+) ", reply, re.MULTILINE):
        client.statuses[int(status)] += 1


async def _get(attacked: AttackedGateway, client: Client, path: bytes) -> bytes:
    return await attacked.answer(RawRequest(b"GET", path, b"").wire(client.key))


async def _send_valid_requests(attacked: AttackedGateway, client: Client) -> None:
    """Send valid requests, which must be answered."""
    for number in range(30):
        path, body = good(Random(number), client.secret)
        reply = await attacked.answer(RawRequest(b"POST", path.encode(), json.dumps(body).encode()).wire(client.key))
        assert reply.startswith(b"HTTP/1.1 200 "), reply[:500]


async def _send_malformed_requests(attacked: AttackedGateway, clients: list[Client], count: int, seed: int) -> None:
    slots = asyncio.Semaphore(AT_ONCE)
    rng = Random(seed)

    async def one(client: Client, raw: RawRequest) -> None:
        async with slots:
            await _send(attacked, client, raw)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            client = clients[number % 2]
            group.create_task(one(client, malformed(rng, client.secret)))


async def test_malformed_requests_break_nothing_and_leak_nothing(
    attacked: AttackedGateway, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    amber, beryl = (
        Client(name, store.create(f"key-of-{name}", ["run"]), f"secret-{name}-5e1f") for name in ("amber", "beryl")
    )
    # One-time allocations must happen before the measurement.
    await _send_malformed_requests(attacked, [amber, beryl], 300, seed=0)
    await _send_valid_requests(attacked, amber)
    files, rss_bytes = attacked.open_files, attacked.rss_bytes
    await _send_malformed_requests(attacked, [amber, beryl], COUNT, seed=1)

    assert attacked.process.returncode is None
    statuses = amber.statuses + beryl.statuses
    assert set(statuses) <= RIGHT, statuses
    assert statuses[200] > COUNT // 50, statuses
    for client, other in ((amber, beryl), (beryl, amber)):
        ours = [
            str(ROOT).encode(),
            str(tmp_path).encode(),
            sys.prefix.encode(),
            str(Path(cappella.__file__).parent).encode(),
        ]
        theirs = [other.secret.encode(), other.key.encode(), f"key-of-{other.name}".encode(), *other.run_ids]
        assert any(client.secret.encode() in reply for reply in client.replies)
        for reply in client.replies:
            assert not TOLD.search(reply), reply[:1000]
            assert not any(each in reply for each in ours), reply[:1000]
            assert not [each for each in theirs if each in reply], reply[:1000]
    assert amber.run_ids
    for run_id in sorted(amber.run_ids)[:20]:
        told = [await _get(attacked, client, b"/api/runs/run-" + run_id) for client in (amber, beryl)]
        assert [each[:12] for each in told] == [b"HTTP/1.1 200", b"HTTP/1.1 404"]
    assert not amber.run_ids & set(RUN_ID.findall(await _get(attacked, beryl, b"/api/runs?limit=1000")))
    assert not amber.run_ids & beryl.run_ids

    await _send_valid_requests(attacked, beryl)
    print(statuses, f"{rss_bytes >> 20} MiB, then {attacked.rss_bytes >> 20}")
    assert await eventually(lambda: fake_engines.running == 0)
    # Connections to engines stay open for some seconds.
    assert await eventually(lambda: attacked.open_files <= files + 2 * AT_ONCE, 10), attacked.open_files
    assert attacked.rss_bytes < rss_bytes + (64 << 20)
    log = (tmp_path / "gateway.log").read_text()
    assert "Traceback" not in log, log[-3000:]
    assert amber.secret not in log
