"""The page left, or led elsewhere, while what is kept is still being written or read, and stores that refuse."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, Route, expect

from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, gateway_config, judge_script, serving
from support.kept_page import FAIL_WRITES, answer, answered, column, delete_all, kept, start_new, stores_held
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEPT = re.compile("#ask/[0-9a-f]{24}$")
FAIL_DELETES = """() => { window.isRefused = true; const { delete: remove } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.delete = function (key) {
    if (window.isRefused) this.transaction.abort();
    return remove.call(this, key); }; }"""
# The user's next step comes just before the page learns what it has read.
ON_READ = """(hash) => { const { transaction } = IDBDatabase.prototype;
  IDBDatabase.prototype.transaction = function (names, mode) { const begun = transaction.call(this, names, mode);
    begun.addEventListener("complete", () => { if (window.isHeld === false && hash) location.hash = hash; hash = null; });
    return begun; }; }"""

GO = "(hash) => { location.hash = hash; }"
# How many views watch whether the tab is seen, as the Machine view does from its mount to its end.
COUNT_WATCHERS = """() => { window.watchers = 0;
  for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
    const old = document[name];
    document[name] = function (type, ...rest) { if (type === "visibilitychange") window.watchers += step;
      return old.call(this, type, ...rest); }; } }"""


async def address_of(page: Page, title: str) -> str:
    found = await kept(page).get_by_text(title, exact=True).get_attribute("href")
    assert found
    return found


async def three_kept(record: PageVisit) -> tuple[str, str]:
    """The addresses of two conversations that are kept, beside the one that is shown."""
    for question in ("One.", "Two.", "Three."):
        await start_new(record.page)
        await answered(record, question)
    await expect(kept(record.page)).to_have_text(["Three.", "Two.", "One."])
    return await address_of(record.page, "One."), await address_of(record.page, "Two.")


@pytest.mark.parametrize("is_begun", [False, True])
async def test_an_answer_that_was_shown_is_there_though_the_page_is_left_before_it_is_written(
    record: PageVisit, is_begun: bool
) -> None:
    page = record.page
    await expect(column(page)).to_contain_text("No conversations yet.")
    if is_begun:
        await answered(record, "Say hello.")
        await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await expect(page).to_have_url(KEPT)
        await page.reload()
    await expect(answer(page, "Say it again.")).to_contain_text("The final answer")
    await expect(page.get_by_role("main")).not_to_contain_text("was cancelled")
    await expect(kept(page)).to_have_text(["Say hello." if is_begun else "Say it again."])
    await page.reload()
    await expect(answer(page, "Say it again.")).to_contain_text("The final answer")
    await expect(kept(page)).to_have_count(1)
    assert "cappella-unwritten" not in await page.evaluate("JSON.stringify(localStorage)")


async def test_a_name_given_just_before_the_page_is_left_is_kept(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await page.get_by_role("button", name="Rename").press("Enter")
        await page.keyboard.type("Greetings")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Greetings")).to_be_visible()
        await page.reload()
    await expect(page.get_by_role("heading", name="Greetings")).to_be_visible()
    await expect(kept(page)).to_have_text(["Greetings"])


async def test_what_was_left_unwritten_overwrites_nothing_that_came_later(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    other = await record.context.new_page()
    await other.goto(page.url)
    await expect(answer(other, "Say hello.")).to_contain_text("The final answer")
    async with stores_held(page):
        await answered(record, "Here.")
        await page.goto("about:blank")
    box = other.get_by_role("textbox", name="Your question")
    await box.fill("There.")
    await box.press("Enter")
    await expect(answer(other, "There.")).to_contain_text("The final answer")
    await expect(kept(other)).to_have_count(1)
    await record.open()
    await expect(kept(page)).to_have_count(2)
    for title in await kept(page).all():
        await title.click()
        await expect(answer(page, "Say hello.")).to_be_visible()


async def test_an_answer_is_kept_though_its_question_could_not_be_written(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    pace = asyncio.Semaphore(0)
    fake_engines.let("judge", judge_script(final=Script(("It is 7.",), pace=pace)))
    await page.evaluate(FAIL_WRITES)
    await record.ask("How many?")
    await expect(column(page)).to_contain_text("keeps no conversations now (ConstraintError)")
    await page.evaluate("window.isFull = false")
    pace.release()
    await expect(kept(page)).to_have_text(["How many?"])
    await expect(column(page)).not_to_contain_text("keeps no conversations now")
    await page.reload()
    await expect(answer(page, "How many?")).to_contain_text("It is 7.")


async def test_where_the_user_goes_is_followed_though_another_conversation_was_just_read(record: PageVisit) -> None:
    page = record.page
    one, two = await three_kept(record)
    await page.evaluate(ON_READ, two)
    async with stores_held(page):
        await page.evaluate(GO, one)
        await expect(page).to_have_url(f"{record.url}/{one}")
    await expect(answer(page, "Two.")).to_contain_text("The final answer")
    await expect(page).to_have_url(f"{record.url}/{two}")
    await expect(page.get_by_role("article", name="One.")).to_have_count(0)


@asynccontextmanager
async def tab_without(record: PageVisit, program: str, address: str) -> AsyncIterator[Page]:
    """A tab at an address, whose view does not get its program until this is over."""
    asked_for, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked_for.set()
        await goes_on.wait()
        await route.continue_()

    tab = await record.context.new_page()
    # The page's one script loads its views at once; as modules they take their time.
    as_modules = {"content_type": "text/javascript", "body": 'import "/assets/main.js";'}
    await tab.route("**/page.js", lambda route: route.fulfill(**as_modules))
    await tab.route(f"**/{program}", hold)
    await tab.goto(f"{record.url}/{address}", wait_until="commit")
    await asked_for.wait()
    yield tab
    goes_on.set()


async def test_where_the_user_goes_is_followed_while_the_view_loads(record: PageVisit) -> None:
    one, two = await three_kept(record)
    async with tab_without(record, "ask.js", one) as tab:
        await tab.evaluate(GO, two)
    await expect(answer(tab, "Two.")).to_contain_text("The final answer")
    await tab.unroute_all(behavior="ignoreErrors")


async def test_a_view_left_and_entered_again_while_it_loads_shows_what_was_asked_for(record: PageVisit) -> None:
    one, _ = await three_kept(record)
    async with tab_without(record, "ask.js", one) as tab:
        await tab.evaluate(GO, "#machine")
        await expect(tab.get_by_role("heading", name="Machine", level=1)).to_be_attached()
        await tab.go_back(wait_until="commit")
        await expect(tab).to_have_title("Ask · Cappella")
    await expect(answer(tab, "One.")).to_contain_text("The final answer")
    await expect(tab).to_have_url(f"{record.url}/{one}")
    await tab.unroute_all(behavior="ignoreErrors")


async def test_of_a_view_left_and_entered_again_while_it_loads_one_goes_on(record: PageVisit) -> None:
    async with tab_without(record, "machine.js", "#machine") as tab:
        await tab.evaluate(COUNT_WATCHERS)
        for view in ("#ask", "#machine"):
            await tab.evaluate(GO, view)
            await expect(tab).to_have_title(re.compile(view[1:], re.IGNORECASE))
    await expect(tab.get_by_role("heading", name="Machine", level=1)).to_be_attached()
    await tab.evaluate(GO, "#ask")
    await expect(tab.get_by_role("textbox", name="Your question")).to_be_visible()
    assert await tab.evaluate("window.watchers") == 0
    await tab.unroute_all(behavior="ignoreErrors")


async def test_a_conversation_that_cannot_be_deleted_stays_and_the_user_is_told(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.evaluate(FAIL_DELETES)
    await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await expect(page.locator(".undo")).to_contain_text("“Say hello.” could not be deleted (")
    await delete_all(page)
    await expect(page.locator(".undo")).to_contain_text("The conversations could not be deleted (")
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.evaluate("window.isRefused = false")
    await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await page.evaluate(FAIL_WRITES)
    undo = page.get_by_role("button", name="Undo")
    await undo.click()
    await expect(page.locator(".undo")).to_contain_text("could not be put back (")
    await page.evaluate("window.isFull = false")
    await undo.click()
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")
    await expect(kept(page)).to_have_text(["Say hello."])


async def test_where_there_is_no_room_for_the_column_a_refused_write_is_told_below(
    browser: Browser, fake_engines: FakeEngines
) -> None:
    viewport = {"width": 768, "height": 900}
    async with serving(fake_engines, gateway_config()) as url, open_page(browser, url, viewport=viewport) as record:
        page = await record.open()
        await page.evaluate(FAIL_WRITES)
        await answered(record, "Say hello.")
        await expect(page.locator(".undo")).to_contain_text("keeps no conversations now (ConstraintError)")
        assert await record.accessibility_violations() == []


async def test_the_switch_tells_the_truth_where_the_browser_takes_no_choice(record: PageVisit) -> None:
    page = record.page
    await expect(column(page)).to_contain_text("No conversations yet.")
    refuse = "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    await page.evaluate(refuse)
    switch = column(page).get_by_role("checkbox", name="Keep conversations")
    await switch.click()
    await expect(column(page)).to_contain_text("does not take that choice now (QuotaExceededError)")
    await expect(switch).to_be_checked()
