"""Fixtures over scripted engines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from choir import Choir, gateway_config, serving


@pytest.fixture
async def choir(tmp_path: Path) -> AsyncIterator[Choir]:
    choir = Choir()
    for name, server in choir.servers.items():
        choir.engines[name] = await server.start(tmp_path)
    yield choir
    for server in choir.servers.values():
        await server.stop()


@pytest.fixture
async def gateway(choir: Choir) -> AsyncIterator[str]:
    async with serving(choir, gateway_config()) as url:
        yield url
