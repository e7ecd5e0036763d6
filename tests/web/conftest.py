"""One browser for a module of tests, and a choir in the same loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser

from browsing import Visit, browsing, visiting
from choir import Choir, gateway_config, serving, singing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def choir(tmp_path: Path) -> AsyncIterator[Choir]:
    async with singing(tmp_path) as choir:
        yield choir


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, choir: Choir) -> AsyncIterator[Visit]:
    """The page over scripted engines, open at Ask, with nothing that may go wrong."""
    async with serving(choir, gateway_config()) as url, visiting(browser, url) as visit:
        await visit.open()
        yield visit
