"""The server that is attacked: the demo with keys, audit log and stored runs, on real engines and loopback."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from campaign.setting import OPEN, hostile_model_served, write_config

START_TIMEOUT_S = 600.0
TOKENS_PER_MINUTE = 300
ACCEPT = "application/json, text/event-stream"
OWNERS: Mapping[str, tuple[str, ...]] = {
    "ann": ("--documents", OPEN),
    "bob": ("--models", "cappella/default"),
    "lim": ("--tokens-per-minute", str(TOKENS_PER_MINUTE)),
    "root": ("--scope", "run,admin"),
}
"""The owners of keys, with the options of `cappella keys create`: `ann` attacks, `bob` must not notice."""


@dataclass(frozen=True)
class Reply:
    """`status` is 0 if the connection broke or the time was over; `body` is parsed JSON, or text."""

    status: int
    body: Any
    took_s: float

    @property
    def code(self) -> str:
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return str(error.get("code")) if isinstance(error, dict) else ""


@dataclass(frozen=True)
class Target:
    """A running server. `folder` has its logs, keys and records."""

    url: str
    keys: Mapping[str, str]
    folder: Path
    process: "subprocess.Popen[bytes]"
    http: aiohttp.ClientSession

    async def post(self, owner: str, path: str, body: Any, timeout_s: float = 60) -> Reply:
        # Not in the event loop, in which the answers of /health are timed.
        data = body if isinstance(body, bytes) else await asyncio.to_thread(encoded, body)
        return await self._send("POST", owner, path, timeout_s, data=data)

    async def send(self, method: str, owner: str, path: str, timeout_s: float = 60) -> Reply:
        """A request without a body."""
        return await self._send(method, owner, path, timeout_s)

    async def upload(self, owner: str, form: bytes, timeout_s: float = 60) -> Reply:
        """A form with the boundary `x`."""
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        return await self._send("POST", owner, "/v1/files", timeout_s, kind, data=form)

    async def get(self, owner: str, path: str, timeout_s: float = 60) -> Reply:
        return await self._send("GET", owner, path, timeout_s)

    async def ask(self, owner: str, model: str = "cappella/default", timeout_s: float = 60, **fields: Any) -> Reply:
        messages = [{"role": "user", "content": "Please tell me the room of Gonil."}]
        body = {"model": model, "messages": messages, "max_tokens": 40, **fields}
        return await self.post(owner, "/v1/chat/completions", body, timeout_s)

    async def _send(
        self, method: str, owner: str, path: str, timeout_s: float, more: Mapping[str, str] = {}, **how: Any
    ) -> Reply:
        began = time.monotonic()
        headers = {"x-api-key": self.keys[owner], "Content-Type": "application/json", "Accept": ACCEPT, **more}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self.http.request(method, self.url + path, headers=headers, timeout=timeout, **how) as reply:
                text = await reply.text()
                return Reply(reply.status, _parsed(text), time.monotonic() - began)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Reply(0, type(error).__name__, time.monotonic() - began)

    def connect(self, receive_bytes: int = 4096) -> socket.socket:
        """A raw connection; with a small receive buffer, a reply that is not read stands still."""
        at = urlsplit(self.url)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw.connect((at.hostname, at.port))
        return raw

    def head(self, owner: str, path: str, length: int) -> bytes:
        key = self.keys.get(owner, owner)
        lines = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"x-api-key: {key}", "Content-Type: application/json")
        return ("\r\n".join((*lines, f"Content-Length: {length}")) + "\r\n\r\n").encode()

    async def engine_states(self) -> dict[str, str]:
        reply = await self.get("root", "/ready")
        engines = reply.body.get("engines", {}) if isinstance(reply.body, dict) else {}
        return {name: str(engine["state"]) for name, engine in engines.items()}

    async def metric(self, pattern: str) -> float:
        """The sum of the samples on /metrics whose name and labels match."""
        reply = await self.get("root", "/metrics")
        return sum(map(float, re.findall(rf"^(?:{pattern}) (\S+)$", str(reply.body), re.MULTILINE)))

    def logs(self) -> list[Path]:
        """Those of engines and tool servers, and what the server itself has printed."""
        return [*(self.folder / "logs").rglob("*.log"), self.folder / "serve.out"]

    def own_logs(self) -> list[Path]:
        """All but those of tool servers, which may log what they are asked."""
        return [path for path in self.logs() if not path.name.startswith("_tool-")]

    def waited_s(self) -> float:
        """How long the gateway's threads have waited for a core so far, in all: other programs of the machine had them."""
        waited_ns = 0
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            # A thread may end meanwhile.
            with suppress(OSError):
                waited_ns += int(path.read_text().split()[1])
        return waited_ns / 1e9

    def rss_mib(self) -> float:
        """The gateway's memory, without its engines."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@contextmanager
def served(
    folder: Path, more_models: Collection[str]
) -> Iterator[tuple[str, Mapping[str, str], "subprocess.Popen[bytes]"]]:
    """The address, the keys and the process of a server of our own; ended afterwards. See `write_config`."""
    keys = {owner: _create_key(folder / "keys.sqlite", owner, options) for owner, options in OWNERS.items()}
    output = folder / "serve.out"
    with hostile_model_served() as asker_url:
        config = write_config(folder, asker_url, more_models)
        command = [sys.executable, "-m", "cappella", "serve", str(config)]
        with output.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
            try:
                yield _address(output, process), keys, process
            finally:
                process.terminate()


def _create_key(file: Path, owner: str, options: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "cappella", "keys", "create", str(file), owner, *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return next(word for word in printed.split() if word.startswith("ck_"))


def _address(output: Path, process: "subprocess.Popen[bytes]") -> str:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        if found := re.search(r"^Ready: .* on (http://[^\s.]+\.[\d.]+:\d+)", output.read_text(), re.MULTILINE):
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"The server did not start:\n{output.read_text()[-3000:]}")


async def all_ready(target: Target, timeout_s: float = 120) -> bool:
    """Wait until every engine is ready."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        if set((await target.engine_states()).values()) == {"ready"}:
            return True
        await asyncio.sleep(0.5)
    return False
