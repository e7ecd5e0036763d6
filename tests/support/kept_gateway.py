"""A gateway that keeps responses, and the stock client that asks it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from cappella.config import Config
from support.fake_engines import MEMBERS, FakeEngines, serving
from support.recorded_gateway import recording_config
from support.scripted_engine import Script


def keeping(tmp_path: Path, **runs: Any) -> Config:
    return recording_config(tmp_path, runs={"content": True, **runs})


def client(url: str, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@asynccontextmanager
async def kept(fake_engines: FakeEngines, tmp_path: Path, **runs: Any) -> AsyncIterator[AsyncOpenAI]:
    async with serving(fake_engines, keeping(tmp_path, **runs)) as url, client(url) as stock:
        yield stock


async def ask(stock: AsyncOpenAI, text: Any = "Say hello.", **more: Any) -> Any:
    return await stock.responses.create(**{"model": "cappella/default", "input": text, **more})


async def ended(stock: AsyncOpenAI, response_id: str) -> Any:
    async with asyncio.timeout(20):
        while (response := await stock.responses.retrieve(response_id)).status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
    return response


def hold(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
