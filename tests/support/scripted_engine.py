"""A scripted engine that speaks vLLM's HTTP API on a Unix socket.

Processes of engines import this module, and nothing of the package with it: that takes half a second.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from cappella.engines.vllm.client import VllmEngine

Json = dict[str, Any]


@dataclass(frozen=True)
class Script:
    """The reply to one call: pieces of text with a pause before each, and how it ends.

    With `pace`, each piece of a stream waits for one release of that semaphore, unless the call is of one token.

    `samples` are complete texts, one per answer of a call with `n`, after the calls of the first; `calls` are tool calls: name and arguments, whose ids
    begin with `call_id`.
    """

    pieces: tuple[str, ...] = ("Hello", " there")
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    call_id: str = "call"
    logprobs: tuple[Json, ...] = ()
    samples: tuple[str, ...] = ()
    pause_s: float = 0.0
    pace: asyncio.Semaphore | None = None
    finish_reason: str = "stop"
    ending: str = "done"  # or: held (until `released` is set), break, garbage, odd, error, refused, hang
    refusal: Json | None = None  # the event of an ending `refused`
    refuse: tuple[int, Json] | None = None
    blanks: str = ""  # around the body of `refuse`


def too_long(limit: int = 100) -> Script:
    """vLLM's refusal of a prompt that is too long."""
    message = f"This model's maximum context length is {limit} tokens."
    error = {"message": message, "type": "BadRequestError", "param": "input_tokens", "code": 400}
    return Script(refuse=(400, {"error": error}))


@dataclass
class ScriptedEngine:
    """The server. `script` gets the request's body; `bodies` are the received requests."""

    model: str
    script: Callable[[Json], Script]
    bodies: list[Json] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    running: int = 0
    aborted: int = 0
    healthy: bool = True
    is_stopped: bool = False  # it answers no question about its health
    hangs: bool = False  # it says that it is healthy, and gives no token
    steps: int = 0  # of its core, as its figures show them
    page: str | None = None  # in the place of figures
    page_status: int = 500
    on_figures: Callable[[], object] = lambda: None
    holds_figures: bool = False  # until `released` is set
    tokens: int = 10  # of every prompt
    tokens_of: Callable[[Json], int] | None = None  # counts those of one prompt
    counted: int = 0
    holds_counts: bool = False  # until `released` is set
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, folder: Path) -> "VllmEngine":
        """Listen on a socket in `folder`; returns a ready engine client of this server."""
        from support.plain_client import ready_client

        self.engine = ready_client(self.model, await self.serve(folder))
        return self.engine

    async def serve(self, folder: Path) -> Path:
        """Listen on a socket in `folder`, whose path is returned."""
        app = web.Application(client_max_size=64 << 20)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"):
            app.router.add_post(path, self._chat)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        self.more_routes(app.router)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        # Without this aiohttp goes on serving a client that has left.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        socket = folder / f"{self.model}.sock"
        await web.UnixSite(self._runner, str(socket)).start()
        return socket

    def more_routes(self, router: web.UrlDispatcher) -> None:
        """Those of a subclass."""

    async def stop(self) -> None:
        await self.engine.close()
        await self.close()

    async def close(self) -> None:
        """Listen no more, and close all connections."""
        await self._runner.cleanup()

    async def _tokenize(self, request: web.Request) -> web.Response:
        self.counted += 1
        if self.holds_counts:
            await self.released.wait()
        count = self.tokens_of(await request.json()) if self.tokens_of else self.tokens
        return web.json_response({"count": count, "max_model_len": 4096, "tokens": []})

    async def _detokenize(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.json_response({"prompt": "Hi"})

    async def _health(self, request: web.Request) -> web.Response:
        if self.is_stopped and request.transport:
            request.transport.abort()
        return web.Response(status=200 if self.healthy else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        self.on_figures()
        if self.holds_figures:
            await self.released.wait()
        if self.page is not None:
            return web.Response(text=self.page, status=self.page_status)
        head = "# HELP vllm:num_requests_running r\n# TYPE vllm:num_requests_running gauge\n"
        running = f'vllm:num_requests_running{{model_name="{self.model}"}} {self.running}\n'
        steps = f'vllm:kv_cache_usage_perc{{model_name="{self.model}"}} {self.steps}\n'
        return web.Response(text=head + running + "# TYPE vllm:kv_cache_usage_perc gauge\n" + steps)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        self.raw.append(raw)
        self.bodies.append(body)
        script = self.script(body)
        self.running += 1
        try:
            if self.hangs:
                await asyncio.sleep(3600)
            if script.refuse:
                text = f"{script.blanks}{json.dumps(script.refuse[1])}{script.blanks}"
                return web.json_response(text=text, status=script.refuse[0])
            if body.get("stream") and script.calls and request.path == "/v1/messages":
                return await self._stream_message(request, script)
            return await (
                self._stream(request, body, script) if body.get("stream") else self._whole(request.path, script)
            )
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _whole(self, path: str, script: Script) -> web.Response:
        for _ in script.pieces:
            await asyncio.sleep(script.pause_s)
        if script.ending == "held":
            await self.released.wait()
        text = "".join(script.pieces)
        spent = {"prompt_tokens": self.tokens, "completion_tokens": len(script.pieces)}
        spent_too = {"input_tokens": self.tokens, "output_tokens": len(script.pieces)}
        choice: Json = {"index": 0, "finish_reason": script.finish_reason}
        message: Json = {"role": "assistant", "content": text}
        if script.reasoning:
            message |= {"content": text or None, "reasoning": script.reasoning}
        blocks: list[Json] = [{"type": "text", "text": text}] if text else []
        blocks += [
            {"type": "tool_use", "id": script.call_id, "name": name, "input": json.loads(arguments)}
            for name, arguments in script.calls
        ]
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        replies: dict[str, Json] = {
            "/v1/chat/completions": {
                "object": "chat.completion",
                "choices": [{**choice, "message": message}],
                "usage": spent,
            },
            "/v1/completions": {"object": "text_completion", "choices": [{**choice, "text": text}], "usage": spent},
            "/v1/responses": {"object": "response", "status": "completed", "output": [item], "usage": spent_too},
            "/v1/messages": {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "end_turn"}
            | {"usage": spent_too},
        }
        return web.json_response({"id": "x", "model": self.model, **replies[path]})

    async def _stream_message(self, request: web.Request, script: Script) -> web.StreamResponse:
        """A call of a named tool as vLLM streams it on /v1/messages: it says `end_turn`."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head: Json = {"id": "x", "type": "message", "role": "assistant", "model": self.model, "content": []}
        head |= {"stop_reason": None, "usage": {"input_tokens": self.tokens, "output_tokens": 0}}
        events: list[Json] = [{"type": "message_start", "message": head}]
        for index, (name, arguments) in enumerate(script.calls):
            block = {"type": "tool_use", "id": f"{script.call_id}_{index}", "name": name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": arguments}
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
            events.append({"type": "content_block_stop", "index": index})
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
        for event in (*events, end, {"type": "message_stop"}):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response

    async def _stream(self, request: web.Request, body: Json, script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self._event({"role": "assistant", "content": ""}))
        if script.reasoning:
            await response.write(self._event({"reasoning": script.reasoning}))
        # An early prefill or a probe takes none of what an answer is released by.
        pace = None if 1 in (body.get("max_tokens"), body.get("max_completion_tokens")) else script.pace
        for piece in () if script.samples else script.pieces:
            await (pace.acquire() if pace else asyncio.sleep(script.pause_s))
            await response.write(self._event({"content": piece}, logprobs=script.logprobs))
        for index, (name, arguments) in enumerate(script.calls):
            for delta in self._call_deltas(index, f"{script.call_id}_{index}", name, arguments):
                await asyncio.sleep(script.pause_s)
                await response.write(self._event({"tool_calls": [delta]}))
        if script.samples and script.calls:
            await response.write(self._event({"content": ""}, script.finish_reason))
        for sample, text in enumerate(script.samples[: body.get("n", 1)]):
            await asyncio.sleep(script.pause_s)
            await response.write(self._event({"content": text}, sample=sample))
            if sample:
                await response.write(self._event({"content": ""}, script.finish_reason, sample=sample))
        match script.ending:
            case "held":
                await self.released.wait()
            case "break":
                assert request.transport
                request.transport.close()
                return response
            case "hang":
                await asyncio.sleep(3600)
            case "garbage":
                await response.write(b"data: {not json\n\n")
            case "odd":
                await response.write(b'data: {"choices": [7]}\n\n')
            case "refused":
                await response.write(f"data: {json.dumps(script.refusal)}\n\ndata: [DONE]\n\n".encode())
                return response
            case "error":
                await response.write(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')
        await response.write(self._event({"content": ""}, script.finish_reason))
        await self._report_usage(response, body, script)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _report_usage(self, response: web.StreamResponse, body: Json, script: Script) -> None:
        """As vLLM does, only where it was asked to."""
        if not (body.get("stream_options") or {}).get("include_usage"):
            return
        spoken = len(script.samples or script.pieces)
        usage = {"prompt_tokens": self.tokens, "completion_tokens": spoken, "total_tokens": self.tokens + spoken}
        usage_event = {"choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 4}}}
        await response.write(f"data: {json.dumps(usage_event)}\n\n".encode())

    def _call_deltas(self, index: int, call_id: str, name: str, arguments: str) -> list[Json]:
        """A call as vLLM streams it: the name first, then its arguments in pieces."""
        head = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        half = len(arguments) // 2
        return [head, *({"index": index, "function": {"arguments": a}} for a in (arguments[:half], arguments[half:]))]

    def _event(
        self, delta: Json, finish_reason: str | None = None, sample: int = 0, logprobs: tuple[Json, ...] = ()
    ) -> bytes:
        reported = {"content": list(logprobs)} if logprobs else None
        choice = {"index": sample, "delta": delta, "logprobs": reported, "finish_reason": finish_reason}
        event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": self.model, "choices": [choice]}
        return f"data: {json.dumps(event)}\n\n".encode()
