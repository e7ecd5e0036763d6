"""The conversations of the page in a test: their column, a question that is answered, and stores that wait or refuse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Locator, Page, expect

from support.browser import PageVisit

# A transaction that is not over until `isHeld` is false: those that are begun later wait for it.
HOLD_STORES = """async () => { const asked = indexedDB.open("cappella");
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  const heads = database.transaction(["heads", "bodies"], "readwrite").objectStore("heads");
  window.isHeld = true;
  const goOn = () => { if (window.isHeld) heads.get("none").onsuccess = goOn; else database.close(); };
  goOn(); }"""
# Writes end as on a full disk: the transaction is aborted, with another error.
FAIL_WRITES = """() => { const { put } = IDBObjectStore.prototype;
  window.isFull = true;
  IDBObjectStore.prototype.put = function (value) { const done = put.call(this, value);
    return window.isFull ? this.add(value) : done; }; }"""


def column(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations")


def kept(page: Page) -> Locator:
    return column(page).get_by_role("link")


async def answered(record: PageVisit, question: str) -> Locator:
    """A question of which the answer is there."""
    turn = await record.ask(question)
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    return turn


async def start_new(page: Page) -> None:
    await column(page).get_by_role("button", name="New conversation").click()
    await expect(page.get_by_role("article")).to_have_count(0)


async def delete_all(page: Page) -> None:
    await column(page).get_by_role("button", name="Delete all…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete all", exact=True).click()


def answer(page: Page, question: str) -> Locator:
    return page.get_by_role("article", name=question).get_by_role("group", name="Answer")


@asynccontextmanager
async def stores_held(page: Page) -> AsyncIterator[None]:
    """Nothing is read or written of what is kept, until this is over."""
    await page.evaluate(HOLD_STORES)
    yield
    await page.evaluate("window.isHeld = false")
