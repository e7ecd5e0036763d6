"""The replicas of an engine on the Machine page: what each does, its buttons, and the end of its log."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.replicas import Replicas
from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, gateway_config, serving
from support.scripted_engine import Script, ScriptedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def machine(browser: Browser, fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[PageVisit]:
    """The Machine page, where the engine ann is on two servers."""
    config, second = gateway_config(), ScriptedEngine("ann-2", lambda _: Script())
    model = config.models["ann"].model_copy(update={"replicas": 2})
    config = config.model_copy(update={"models": {**config.models, "ann": model}})
    clients = {"ann-1": fake_engines.engines["ann"], "ann-2": await second.start(tmp_path)}
    engines: dict[str, Any] = fake_engines.engines
    engines["ann"] = Replicas("ann", model.capabilities, [Replica(name, each, 64) for name, each in clients.items()])
    async with serving(fake_engines, config) as url, open_page(browser, url, refusals=[409]) as record:
        await record.open("/#machine")
        yield record
    await second.stop()


def replica(record: PageVisit, number: int) -> Locator:
    return record.page.get_by_role("list", name="Replicas of ann").get_by_role("listitem").nth(number - 1)


async def test_one_replica_is_put_to_sleep_and_woken_and_the_page_tells_what_came_of_it(
    machine: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.obeys = True
    second = replica(machine, 2)
    await expect(second).to_contain_text("0 of 64 calls")
    await second.get_by_role("button", name="Put to sleep ann-2").click()
    await machine.page.get_by_role("dialog").get_by_role("button", name="Put to sleep").click()
    await expect(second).to_contain_text("stopped")
    await expect(machine.page.get_by_role("list", name="What was done here")).to_contain_text("ann-2 sleeps")
    await expect(replica(machine, 1)).to_contain_text("ready")
    await second.get_by_role("button", name="Wake ann-2").press("Enter")
    await machine.page.get_by_role("dialog").get_by_role("button", name="Wake").click()
    await expect(second).to_contain_text("ready")
    await expect(second.get_by_role("button", name="Restart ann-2")).to_be_visible()


async def test_an_action_that_is_refused_is_told(machine: PageVisit) -> None:
    await replica(machine, 1).get_by_role("button", name="Restart ann-1").click()
    await machine.page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    await expect(machine.page.get_by_role("alert").filter(has_text="ann-1")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1280])
async def test_a_replica_opens_to_the_end_of_its_own_log(
    machine: PageVisit, fake_engines: FakeEngines, tmp_path: Path, width: int
) -> None:
    page, log = machine.page, tmp_path / "ann-2.log"
    await page.set_viewport_size({"width": width, "height": 900})
    log.write_text("first\nout of memory\n")
    fake_engines.logs["ann-2"] = log
    fake_engines.deployment.replica_statuses["ann-2"].state = "failed"
    await expect(replica(machine, 2).get_by_role("button", name="Start ann-2")).to_be_visible()
    await page.get_by_role("button", name="Details of ann-2").press("Enter")
    await expect(page.get_by_role("group", name="End of the log of ann-2")).to_contain_text("out of memory")
    await expect(page.get_by_role("group", name="End of the log of ann-1")).to_be_hidden()
    assert await machine.accessibility_violations() == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
