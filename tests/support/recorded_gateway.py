"""A gateway with audit log and run store, and a client that sends it secrets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from cappella.config import Audit, Config, Runs
from support.fake_engines import FakeEngines, gateway_config, serving

SECRET = "Zebrafinch-4711"


def recording_config(tmp_path: Path, **settings: Any) -> Config:
    """A config with keys, an audit log and a run store."""
    config = gateway_config(**settings.pop("ensemble", {}))
    audit = Audit.model_validate({"file": tmp_path / "audit.jsonl", **settings.pop("audit", {})})
    runs = Runs.model_validate({"file": tmp_path / "runs.sqlite", **settings.pop("runs", {})})
    server = config.server.model_copy(update={"audit": audit, "runs": runs, **settings})
    return config.model_copy(update={"server": server})


@asynccontextmanager
async def client(
    fake_engines: FakeEngines, config: Config, key: str | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"x-api-key": key} if key else {}
    async with serving(fake_engines, config) as url, aiohttp.ClientSession(url, headers=headers) as http:
        yield http


async def ask(
    http: aiohttp.ClientSession, model: str = "cappella/default", path: str = "/v1/chat/completions", **fields: Any
) -> tuple[int, bytes]:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], **fields}
    async with http.post(path, json=body) as reply:
        return reply.status, await reply.read()
