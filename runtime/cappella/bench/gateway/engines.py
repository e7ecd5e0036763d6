"""Scripted engines of little CPU cost: every stream sends 100 tokens a second, each with its sending time."""

import asyncio
import json
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvloop

TICK_S = 0.01
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BEFORE = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"scripted",'
    b'"choices":[{"index":0,"delta":{"content":"'
)
AFTER = b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
ROLE = BEFORE.replace(b'{"content"', b'{"role":"assistant","content"') + AFTER
LAST = BEFORE + b'"},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":300,"total_tokens":%d,"completion_tokens":%d}}\n\n'
RUN = re.compile(r"run=(\d+);")
ANALYSIS = {
    "consensus": ["All of them count upwards."],
    "contradictions": [{"topic": "the time", "stances": [{"model": "A", "stance": "it is early"}]}],
    "partial_coverage": [{"models": ["A", "B"], "point": "the first seconds"}],
    "unique_insights": [{"model": "B", "insight": "time does not stand still"}],
    "blind_spots": ["what comes after the last of the numbers"],
}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Call(asyncio.Protocol):
    """One connection: each request gets a stream that a common tick drives."""

    streaming: set["Call"] = set()  # noqa: RUF012 - one for the whole process
    log: list[tuple[int, str, int, int]] = []  # noqa: RUF012

    def __init__(self, model: str, tokens: int) -> None:
        self._model = model
        self._tokens = tokens
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.streaming.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not blank or len(body) < int(size[1] if size else 0):
            return
        self._received = b""
        path = head.split(b" ", 2)[1]
        if path == b"/v1/chat/completions":
            return self._begin(orjson.loads(body))
        reply = b'{"count": 300}' if path == b"/tokenize" else b"{}"
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply), reply))

    def _begin(self, body: dict[str, Any]) -> None:
        prompt = next(m["content"] for m in body["messages"] if m["role"] == "user")
        run = RUN.search(prompt)
        self._run = int(run[1]) if run else -1
        self._began_ns = time.monotonic_ns()
        self._interval = body.get("stream_interval", 1)
        text = orjson.dumps(json.dumps(ANALYSIS))[1:-1].decode() if "response_format" in body else ""
        cut = -(-len(text) // self._tokens)
        # A piece must not end inside an escape.
        self._pieces = re.findall(rf"(?:\\.|[^\\]){{1,{cut}}}", text) if text else []
        self._count = len(self._pieces) or self._tokens
        self._sent = self._due = 0
        self._transport.write(HEAD + chunk(ROLE))
        self.streaming.add(self)

    def tick(self) -> None:
        """Produce one token; send what is due for the first, the last, and every full interval."""
        self._due += 1
        if self._due == 1 or self._due == self._count or self._due - self._sent >= self._interval:
            if self._pieces:
                text = "".join(self._pieces[self._sent : self._due]).encode()
            else:
                text = b"@%015d " % time.monotonic_ns() * (self._due - self._sent)
            self._sent = self._due
            data = chunk(BEFORE + text + AFTER)
            if self._due == self._count:
                data += chunk(LAST) + chunk(USAGE % (300 + self._count, self._count)) + chunk(b"data: [DONE]\n\n")
                data += b"0\r\n\r\n"
            self._transport.write(data)
        if self._due == self._count:
            self.streaming.discard(self)
            self.log.append((self._run, self._model, self._began_ns, time.monotonic_ns()))


async def serve(folder: Path, models: list[str], tokens: int) -> None:
    """Serve until SIGTERM; then print every call's run, model, start and end as JSON."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    # uvloop closes a server without a reference.
    servers = [
        await loop.create_unix_server(partial(Call, model, tokens), str(folder / f"{model}.sock"), backlog=4096)
        for model in models
    ]
    print("ready", flush=True)
    due = loop.time()
    while not stopped.is_set():
        due = max(due + TICK_S, loop.time() - TICK_S)
        await asyncio.sleep(due - loop.time())
        for call in list(Call.streaming):
            call.tick()
    for server in servers:
        server.close()
    print(json.dumps(Call.log), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])))
