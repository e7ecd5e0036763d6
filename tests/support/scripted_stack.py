"""A gateway over real engine processes that run a scripted engine instead of vLLM."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from cappella.config import load
from cappella.engines import backends
from cappella.engines.spec import Backoff
from cappella.engines.supervisor import Supervisor
from cappella.gateway.app import create_app
from support.fake_engines import eventually
from support.real_deployment import ROOT
from support.stub_engine import NAME, environment, fork_server
from support.weights_folder import write_model

Json = dict[str, Any]

STUB = f"""
import asyncio, sys
from pathlib import Path
sys.path.append({str(ROOT / "tests")!r})
from support.scripted_engine import Script, ScriptedEngine

async def serve(folder, name):
    await ScriptedEngine("engine", lambda body: Script((name, " speaks"), pause_s=0.05)).serve(folder)
    await asyncio.sleep(3600)

def main():
    args = sys.argv
    if "--seed" in args or Path(__file__).with_name("crash").exists():
        sys.exit("ValueError: the weights are cursed")
    name = args[args.index("--served-model-name") + 1] + " of " + args[args.index("--max-num-seqs") + 1]
    asyncio.run(serve(Path(args[args.index("--uds") + 1]).parent, name))
"""


@dataclass
class Stack:
    """The gateway and its config file."""

    path: Path
    config: Json
    supervisor: Supervisor
    app: Any = None
    url: str = ""
    replies: list[tuple[int, Json]] = field(default_factory=list)

    def write(self) -> None:
        self.path.write_text(json.dumps(self.config))

    async def reload(self) -> Json:
        self.write()
        reply: Json = await self.app.state.reloader.reload()
        return reply

    async def ask(self, model: str = "cappella/default", **fusion: Any) -> tuple[int, Json]:
        body: Json = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        body |= {"fusion": fusion} if fusion else {}
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            return reply.status, await reply.json()

    async def keep_asking(self, **fusion: Any) -> None:
        while True:
            self.replies.append(await self.ask(**fusion))

    @property
    def engine_processes(self) -> dict[str, int | None]:
        """The process id of each engine."""
        lifecycles = self.supervisor.lifecycles.items()
        return {name: each.process_group for name, each in lifecycles}


def model(**more: Any) -> Json:
    return {"weights": "weights", "max_model_len": 1024, "kv_cache_bytes": "1MiB", "max_num_seqs": 8, **more}


def scripted_config(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Json) -> tuple[Path, Json]:
    """A config and its file, whose engines are scripted from now on."""
    write_model(folder / "weights", tokenizer={"added_tokens": []})
    fork_server(folder / "modules", STUB)
    monkeypatch.setattr(backends, "SERVER_MODULE", NAME)
    monkeypatch.setattr(backends, "server_environment", lambda *_: environment(folder / "modules"))
    config: Json = {
        "models": {"ann": model(), "bob": model()},
        "ensembles": {"default": {"panel": ["ann", "bob"], "judge": "ann", "analysis": "off"}},
        **more,
    }
    path = folder / "c.yaml"
    path.write_text(json.dumps(config))
    return path, config


@asynccontextmanager
async def stack(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Json) -> AsyncIterator[Stack]:
    path, config = scripted_config(folder, monkeypatch, **more)
    first = load.load(path)
    found = Stack(path, config, Supervisor(first, folder / "logs", Backoff((0.05,)), health_interval_s=0.05))
    found.app = create_app(first, found.supervisor, lambda: load.load(path))
    server = uvicorn.Server(uvicorn.Config(found.app, port=0, log_level="error", lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    assert await eventually(lambda: server.started, 10)
    found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        assert await eventually(lambda: all(each.accepts_requests for each in found.supervisor.statuses.values()), 30)
        yield found
    finally:
        server.should_exit = True
        await serving
