"""One browser for all tests of a process, and scripted engines in the same loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser

from support.browser import PageVisit, open_browser, open_page
from support.fake_engines import FakeEngines, gateway_config, running_fake_engines, serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def fake_engines(tmp_path: Path) -> AsyncIterator[FakeEngines]:
    async with running_fake_engines(tmp_path) as fake_engines:
        yield fake_engines


@pytest_asyncio.fixture(loop_scope="session")
async def record(browser: Browser, fake_engines: FakeEngines) -> AsyncIterator[PageVisit]:
    """The page over scripted engines, open at Ask, with nothing that may go wrong."""
    async with serving(fake_engines, gateway_config()) as url, open_page(browser, url) as record:
        await record.open()
        yield record
