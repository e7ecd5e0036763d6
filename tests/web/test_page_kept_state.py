"""What is kept of conversations in a real browser, where things happen at once: runs that end, tabs, keys, full disks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Locator, Page, Route, expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A transaction that is not over until `isHeld` is false: those that are begun later wait for it.
HOLD_STORES = """async () => { const asked = indexedDB.open("cappella");
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  const heads = database.transaction(["heads", "bodies"], "readwrite").objectStore("heads");
  window.isHeld = true;
  const goOn = () => { if (window.isHeld) heads.get("none").onsuccess = goOn; else database.close(); };
  goOn(); }"""
COUNT_KEPT = """async () => { const asked = indexedDB.open("cappella");
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  const counted = database.transaction("heads").objectStore("heads").count();
  const count = await new Promise((done) => { counted.onsuccess = () => done(counted.result); });
  database.close();
  return count; }"""

# Writes end as on a full disk: the transaction is aborted, with another error.
FAIL_WRITES = """() => { const { put } = IDBObjectStore.prototype;
  window.isFull = true;
  IDBObjectStore.prototype.put = function (value) { const done = put.call(this, value);
    return window.isFull ? this.add(value) : done; }; }"""
CHAT = "**/v1/chat/completions"


def column(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations")


def kept(page: Page) -> Locator:
    return column(page).get_by_role("link")


def answer(page: Page, question: str) -> Locator:
    return page.get_by_role("article", name=question).get_by_role("group", name="Answer")


async def answered(record: PageVisit, question: str) -> Locator:
    """A question of which the answer is there."""
    turn = await record.ask(question)
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    return turn


async def start_new(page: Page) -> None:
    await column(page).get_by_role("button", name="New conversation").click()
    await expect(page.get_by_role("article")).to_have_count(0)


async def refuse(route: Route) -> None:
    error = {"message": "Busy.", "code": "overloaded"}
    await route.fulfill(status=429, headers={"Retry-After": "30"}, json={"error": error})


@asynccontextmanager
async def stores_held(page: Page) -> AsyncIterator[None]:
    """Nothing is read or written of what is kept, until this is over."""
    await page.evaluate(HOLD_STORES)
    yield
    await page.evaluate("window.isHeld = false")


async def test_a_conversation_opened_before_its_result_is_kept_has_the_result(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await start_new(page)
        await kept(page).get_by_text("Say hello.").click()
    await expect(answer(page, "Say it again.")).to_contain_text("The final answer")
    await answered(record, "And now?")
    await expect(kept(page)).to_have_text(["Say hello."])


async def test_of_two_conversations_opened_the_later_one_is_shown(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await start_new(page)
    fake_engines.let("cat", Script(("Slow",), ending="hang"))
    await record.ask("A slow one.")
    await expect(kept(page)).to_have_text(["A slow one.", "Say hello."])
    await start_new(page)
    async with stores_held(page):
        await kept(page).get_by_text("Say hello.").click()
        await kept(page).get_by_text("A slow one.").click()
        await expect(page.get_by_role("article", name="A slow one.")).to_be_visible()
    for _ in range(5):
        await page.evaluate(COUNT_KEPT)
    await expect(kept(page).get_by_text("A slow one.")).to_have_attribute("aria-current", "page")
    await expect(page.get_by_role("article", name="A slow one.")).to_be_visible()


@pytest.mark.parametrize("way", ["Delete “Say hello.”", "New conversation"])
async def test_a_note_out_of_sight_asks_nothing_of_itself(record: PageVisit, way: str) -> None:
    record.refusals = {429}
    page = record.page
    await page.clock.install()
    await page.reload()
    await page.route(CHAT, refuse)
    turn = await record.ask("Say hello.")
    await turn.get_by_role("checkbox", name="Ask again automatically").check()
    await expect(kept(page)).to_have_text(["Say hello."])
    await column(page).get_by_role("button", name=way).click()
    await expect(page.get_by_role("article")).to_have_count(0)
    asked = sum(url.endswith("/v1/chat/completions") for url in record.requested)
    await page.clock.run_for(60_000)
    await page.evaluate("fetch('/api/machine').then(() => null)")
    assert sum(url.endswith("/v1/chat/completions") for url in record.requested) == asked
    await page.unroute_all(behavior="ignoreErrors")


async def test_a_note_that_is_seen_again_can_be_used(record: PageVisit) -> None:
    record.refusals = {429}
    page = record.page
    await page.route(CHAT, refuse)
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("button", name="Ask again", exact=True)).to_be_disabled()
    await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await page.unroute_all(behavior="ignoreErrors")
    await page.get_by_role("button", name="Undo").click()
    await turn.get_by_role("button", name="Ask again", exact=True).click()
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")


async def test_a_full_disk_is_told_until_there_is_room_and_makes_no_second_conversation(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.evaluate(FAIL_WRITES)
    await answered(record, "Say it again.")
    await page.evaluate(COUNT_KEPT)
    await expect(column(page)).to_contain_text("This browser keeps no conversations now (ConstraintError).")
    await page.evaluate("window.isFull = false")
    await answered(record, "And now?")
    await expect(column(page)).not_to_contain_text("keeps no conversations")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.reload()
    await expect(answer(page, "And now?")).to_contain_text("The final answer")


async def test_two_tabs_whose_runs_end_at_once_lose_no_turn(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    other = await record.context.new_page()
    await other.goto(page.url)
    await expect(other.get_by_role("article", name="Say hello.")).to_be_visible()
    async with stores_held(page):
        await answered(record, "Here.")
        box = other.get_by_role("textbox", name="Your question")
        await box.fill("There.")
        await box.press("Enter")
        await expect(answer(other, "There.")).to_contain_text("The final answer")
    await expect(kept(page)).to_have_count(2)
    for tab, question in ((page, "Here."), (other, "There.")):
        await tab.reload()
        await expect(answer(tab, question)).to_contain_text("The final answer")
