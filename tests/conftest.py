"""Fixtures: scripted engines, a gateway over them, and one real deployment for the whole session."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from choir import Choir, gateway_config, serving
from deployment import ROOT, Deployment, start, stop


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


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = start(ROOT / "model_configs" / "demo.yaml", tmp_path_factory.mktemp("logs"))
    yield deployment
    if deployment.process.poll() is None:
        stop(deployment)
