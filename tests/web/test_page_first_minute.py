"""The first minute on the page, in a real browser: what the ensemble is for, what loads, and what it does not know."""

import pytest
from playwright.async_api import Browser, expect

from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, gateway_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOTICE = "It knows the handbook and nothing else."


async def test_what_loads_is_shown_and_a_question_waits_for_it(record: PageVisit, fake_engines: FakeEngines) -> None:
    record.refusals = {503}
    for name in ("ann", "bob"):
        status = fake_engines.engines[name].status
        status.state, status.stage, status.progress, status.remaining_s = "loading", "loads the weights", 0.4, 12.0
    page = await record.open("/?again")
    note = page.get_by_role("group", name="The models are loading")
    await expect(note).to_contain_text("ann")
    await expect(note).to_contain_text("loads the weights, about 12 s left")
    await expect(note.get_by_role("progressbar", name="bob loading")).to_have_attribute("value", "0.4")
    assert await record.accessibility_violations() == []
    turn = await record.ask("Say hello.")
    await expect(turn).to_contain_text("The engines are still loading")
    await expect(note).to_be_hidden()
    for name in ("ann", "bob"):
        fake_engines.engines[name].status.state = "ready"
    await expect(page.get_by_role("article", name="Say hello.")).to_contain_text("The final answer")
    await page.get_by_role("button", name="New conversation").click()
    await expect(page.get_by_role("button", name="Say hello.", exact=True)).to_be_visible()
    await expect(note).to_be_hidden()


async def test_what_the_ensemble_is_for_is_told_before_and_after_an_answer_without_support(
    browser: Browser, fake_engines: FakeEngines
) -> None:
    config = gateway_config(notice=NOTICE, examples=["Where is Gonil?"])
    plain = {name: each.model_copy(update={"notice": ""}) for name, each in config.ensembles.items()}
    config = config.model_copy(update={"ensembles": {**plain, "default": config.ensembles["default"]}})
    async with serving(fake_engines, config) as url, open_page(browser, url) as record:
        page = await record.open()
        welcome = page.locator(".welcome")
        await expect(welcome).to_contain_text(NOTICE)
        await page.locator(".composer summary").click()
        ensemble = page.get_by_role("combobox", name="Ensemble")
        await ensemble.select_option("fixed")
        await expect(welcome).not_to_contain_text(NOTICE)
        await ensemble.select_option("default")
        await expect(welcome).to_contain_text(NOTICE)
        await page.get_by_role("button", name="Where is Gonil?").click()
        await page.get_by_role("textbox", name="Your question").press("Enter")
        unsupported = page.get_by_role("article", name="Where is Gonil?").locator(".unsupported")
        await expect(unsupported).to_contain_text(NOTICE)
