"""A gateway that takes batches, and the stock clients that send them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from openai import AsyncOpenAI

from cappella.config import Config
from support.batch_gateway import batch_config
from support.fake_engines import FakeEngines, serving
from support.kept_gateway import client
from support.scripted_engine import Json
from support.stored_batches import CHAT, lines_of
from support.strict_gateway import with_keys


@asynccontextmanager
async def batching(
    fake_engines: FakeEngines, folder: Path, keys: Path | None = None, section: Json | None = None
) -> AsyncIterator[str]:
    """The address of a gateway whose batches lie in the folder."""
    config: Config = batch_config(folder, section=section)
    async with serving(fake_engines, with_keys(config, keys) if keys else config) as url:
        yield url


@asynccontextmanager
async def stock_client(fake_engines: FakeEngines, folder: Path, **section: Any) -> AsyncIterator[AsyncOpenAI]:
    async with batching(fake_engines, folder, section=section) as url, client(url) as stock:
        yield stock


async def upload(stock: AsyncOpenAI, content: bytes, name: str = "in.jsonl", **more: Any) -> Any:
    return await stock.files.create(file=(name, content), purpose="batch", **more)


async def create(stock: AsyncOpenAI, bodies: Sequence[Json], endpoint: str = CHAT, **more: Any) -> Any:
    """A batch of these bodies, as it was when it was created."""
    file = await upload(stock, b"".join(lines_of(bodies, endpoint)))
    wanted: Any = {"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h", **more}
    return await stock.batches.create(**wanted)


async def ended(stock: AsyncOpenAI, batch_id: str) -> Any:
    async with asyncio.timeout(60):
        while (batch := await stock.batches.retrieve(batch_id)).status in ("validating", "in_progress", "cancelling"):
            await asyncio.sleep(0.02)
    return batch


async def lines_in(stock: AsyncOpenAI, file_id: str | None) -> list[Json]:
    assert file_id
    return [orjson.loads(line) for line in (await stock.files.content(file_id)).content.splitlines()]
