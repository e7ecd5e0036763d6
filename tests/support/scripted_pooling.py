"""A scripted engine that writes nothing: vLLM's endpoints for embeddings and scores."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from cappella.config import Config
from cappella.engines.status import EngineStatus
from cappella.engines.vllm.pooling import PoolingEngine
from cappella.engines.vllm.scores import PATHS
from cappella.types import Capabilities
from cappella.vocabulary import Task
from support.fake_engines import FakeEngines, gateway_config
from support.plain_client import PLAIN
from support.scripted_engine import Json, ScriptedEngine

TASKS: Mapping[str, Task] = {"emb": "embed", "rank": "rerank", "rm": "reward"}


@dataclass
class ScriptedPooling(ScriptedEngine):
    """`worth` scores a text, `vector` embeds it; `refusal` is the status and error of every call instead. `asked` has the paths of all calls."""

    script: Callable[[Json], Any] = lambda _: None
    task: Task = "embed"
    worth: Callable[[str], float] = len
    vector: Callable[[str], list[float]] = lambda _: [1.0, 0.5]
    refusal: Callable[[Json], tuple[int, Json] | None] = lambda _: None
    asked: list[str] = field(default_factory=list)

    async def start(self, folder: Path) -> PoolingEngine:
        """Listen on a socket in `folder`; returns a ready engine client of this server."""
        socket = await self.serve(folder)
        capabilities = Capabilities(task=self.task, context_tokens=100)
        self.engine = PoolingEngine(socket, EngineStatus(self.model, "ready"), PLAIN, capabilities)
        return self.engine

    def more_routes(self, router: web.UrlDispatcher) -> None:
        for path in PATHS:
            router.add_post(path, self._pool)

    async def _pool(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.bodies.append(body)
        self.asked.append(request.path)
        if refused := self.refusal(body):
            return web.json_response(refused[1], status=refused[0])
        head = {"id": "x", "object": "list", "created": 1, "model": self.model}
        usage = {"prompt_tokens": self.tokens, "total_tokens": self.tokens, "completion_tokens": 0}
        return web.json_response({**head, **self._reply(request.path, body), "usage": usage})

    def _reply(self, path: str, body: Json) -> Json:
        if path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            vectors = [self.vector(text) for text in texts]
            return {"data": [{"index": at, "object": "embedding", "embedding": v} for at, v in enumerate(vectors)]}
        if path == "/classify":
            text = body["messages"][-1]["content"] if "messages" in body else body["input"]
            return {"data": [{"index": 0, "label": "LABEL_0", "probs": [self.worth(text)], "num_classes": 1}]}
        texts = body["documents"] if isinstance(body["documents"], list) else [body["documents"]]
        scores = [self.worth(text) for text in texts]
        if path == "/score":
            return {"data": [{"index": at, "object": "score", "score": score} for at, score in enumerate(scores)]}
        ranked = sorted(range(len(texts)), key=lambda at: -scores[at])[: body.get("top_n") or None]
        return {
            "results": [
                {"index": at, "document": {"text": texts[at], "multi_modal": None}, "relevance_score": scores[at]}
                for at in ranked
            ]
        }


async def add_pooling(fake_engines: FakeEngines, folder: Path) -> Mapping[str, ScriptedPooling]:
    """Adds an engine of each task, which `pooling_config` names."""
    added = {name: ScriptedPooling(name, task=task) for name, task in TASKS.items()}
    for name, server in added.items():
        fake_engines.servers[name] = server
        fake_engines.engines[name] = await server.start(folder)
    return added


def pooling_config(server: Mapping[str, Any] = {}, aliases: Mapping[str, str] = {}, **ensemble: Any) -> Config:
    """The gateway's config with a model of each task, and an ensemble `best` that the reward model judges."""
    config = gateway_config().model_dump(exclude_unset=True)
    model = {"weights": "unused", "max_model_len": 100}
    config["models"] |= {name: {**model, "task": task} for name, task in TASKS.items()}
    best = {"panel": ["ann", "bob", "cat"], "judge": "rm", "strategy": "select", **ensemble}
    config["ensembles"]["best"] = best
    config["server"] |= {**server, "aliases": dict(aliases)}
    return Config.model_validate(config)
