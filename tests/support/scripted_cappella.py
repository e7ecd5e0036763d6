"""A scripted Cappella server for clients that evaluate: members, a judge, and runs over given answers (`fusion.answers`)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Say = Callable[[Json], str | tuple[int, str]]
"""The text of a reply to a body, or the status and message of a refusal."""


def last(body: Json) -> str:
    return str(body["messages"][-1]["content"])


@dataclass
class ScriptedCappella:
    """`says` are replies by model; an ensemble's `choose` returns the number of one of its answers, in the order shown."""

    says: dict[str, Say]
    panel: list[str]
    judge: str = "judge"
    choose: Callable[[Json, list[str]], int] = lambda body, shown: 0
    writes: Callable[[Json, list[str]], str] = lambda body, shown: shown[0]
    presets: list[str] = field(default_factory=list)
    takes_answers: bool = True
    refusal: tuple[str, str] = ("fusion.answers", "invalid_value")  # field and code, if it does not
    run_refuses: Callable[[Json], str | None] = lambda body: None
    bodies: list[Json] = field(default_factory=list)
    busy: int = 0  # so many requests are refused with 503

    def asked(self, model: str) -> list[Json]:
        return [body for body in self.bodies if body["model"] == model]

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        entry: Json = {"id": "cappella/default", "panel": self.panel, "judge": self.judge, "presets": self.presets}
        models = sorted({*self.says, self.judge})
        return web.json_response({"data": [entry, *({"id": name, "max_model_len": 100} for name in models)]})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        await asyncio.sleep(0)
        if self.busy:
            self.busy -= 1
            return _error(503, "starting")
        if body["model"] == "cappella/default":
            return self._run(body)
        said = self.says[body["model"]](body)
        return _error(*said) if isinstance(said, tuple) else _reply(said)

    def _run(self, body: Json) -> web.Response:
        fusion = body["fusion"]
        if not self.takes_answers:
            return _error(400, f"{self.refusal[0]}: refused", *self.refusal)
        if problem := self.run_refuses(body):
            return _error(400, problem)
        order = list(fusion["answers"])
        Random(body["seed"]).shuffle(order)
        shown = [each["content"] for each in order]
        labels = dict(zip("ABCDEFGH", (each["model"] for each in order), strict=False))
        trace: Json = {"status": "ok", "labels": labels, "usage": {"prompt_tokens": 30, "completion_tokens": 2}}
        if fusion.get("strategy") == "select":
            number = self.choose(body, shown)
            name = order[number]["model"]
            trace |= {"chosen": name, "probabilities": dict.fromkeys(labels.values(), 0.1) | {name: 0.8}}
            return _reply(shown[number], trace)
        return _reply(self.writes(body, shown), trace)


def _reply(content: str, fusion: Json | None = None) -> web.Response:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 8, "completion_tokens": 2}
    extra = {"fusion": fusion} if fusion else {}
    return web.json_response({"choices": [{"message": message}], "usage": usage, **extra})


def _error(status: int, message: str, param: str | None = None, code: str = "") -> web.Response:
    return web.json_response({"error": {"message": message, "param": param, "code": code}}, status=status)
