"""A scripted OpenAI-compatible server other than vLLM, over TCP; it refuses unknown fields."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
KNOWN = frozenset(
    "model messages stream stream_options temperature top_p presence_penalty frequency_penalty seed stop max_tokens"
    " tools tool_choice response_format logprobs top_logprobs".split()
)


@dataclass
class PlainServer:
    """It answers with `says`, one word per event. With `tells_usage` false it ignores `stream_options`."""

    model: str = "Big/Model-70B"
    says: str = "Hello from afar"
    tells_usage: bool = True
    max_model_len: int | None = None
    key: str | None = None
    status: int = 200  # of every reply; or the reason why there is none
    hangs: bool = False
    freezes: bool = False  # it answers nothing at all
    breaks: bool = False  # each chat after its first event
    holds: bool = False  # each chat after its first event, until `released` is set
    released: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    bodies: list[Json] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    running: int = 0
    aborted: int = 0

    async def start(self) -> "PlainServer":
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Json]:
        """The chat requests received, without one-token probes."""
        return [body for body in self.bodies if body.get("max_tokens") != 1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _refusal(401, f"wrong key {request.headers.get('Authorization')}")
        if self.freezes:
            await asyncio.sleep(3600)
        if self.status != 200:
            return _refusal(self.status, "not now")
        if request.path == "/v1/models":
            length = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
            return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model", **length}]})
        if request.path != "/v1/chat/completions":
            return _refusal(404, f"no {request.path}")
        body = await request.json()
        self.bodies.append(body)
        if strange := sorted(set(body) - KNOWN):
            return _refusal(400, f"unknown field {strange[0]}")
        self.running += 1
        try:
            return await self._chat(request, body)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _chat(self, request: web.Request, body: Json) -> web.StreamResponse:
        if self.hangs:
            await asyncio.sleep(3600)
        usage = {"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": self.says}, "finish_reason": "stop"}
            return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in self.says.split(" "):
            await response.write(_event({"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}))
            if self.breaks and request.transport:
                request.transport.abort()
            if self.holds:
                await self.released.wait()
        await response.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        if self.tells_usage:
            await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response


def _event(value: Json) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=status)
