"""A gateway over attached servers alone, with the real supervisor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from cappella.config import load
from cappella.engines.supervisor import Supervisor
from cappella.gateway.app import create_app
from support.fake_engines import eventually

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "Say hello, please."}]


@dataclass
class House:
    url: str
    path: Path
    supervisor: Supervisor
    app: Any

    async def ask(self, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, Json]:
        whole = {"model": "cappella/default", "messages": HELLO, **body}
        async with aiohttp.ClientSession() as http, http.post(self.url + path, json=whole) as reply:
            return reply.status, await reply.json()

    async def get(self, path: str) -> Json:
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as reply:
            return dict(await reply.json())


@asynccontextmanager
async def house(path: Path) -> AsyncIterator[House]:
    loaded = load.load(path)
    supervisor = Supervisor(loaded, path.parent / "logs")
    app = create_app(loaded, supervisor, lambda: load.load(path))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    assert await eventually(lambda: server.started, 10)
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        assert await eventually(lambda: all(each.start_finished for each in supervisor.statuses.values()), 10)
        yield House(url, path, supervisor, app)
    finally:
        server.should_exit = True
        await serving
