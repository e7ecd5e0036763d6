"""What is deleted, or may not be kept, comes back from nowhere: not from a write that waits, nor from what was left unwritten."""

import asyncio

import pytest
from playwright.async_api import Page, expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines, judge_script
from support.kept_page import FAIL_WRITES, answer, answered, column, delete_all, kept, start_new, stores_held
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A conversation of another key, left unwritten in another tab.
LEAVE_ANOTHER = """() => localStorage.setItem("cappella-unwritten-other", JSON.stringify(
  { mayBegin: true, seenMs: 1, head: { id: "other", owner: "other", title: "Other", createdMs: 1, changedMs: 2 }, turns: [] }))"""


async def test_what_is_deleted_while_its_answer_waits_to_be_written_stays_deleted(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await answered(record, "And again.")
        await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await expect(column(page)).to_contain_text("No conversations yet.")
    await page.reload()
    await expect(column(page)).to_contain_text("No conversations yet.")


async def test_what_runs_while_all_is_deleted_stays_deleted_though_its_question_could_not_be_written(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await start_new(page)
    fake_engines.let("judge", judge_script(final=Script(("It is", " 7."), pace=asyncio.Semaphore(0))))
    await page.evaluate(FAIL_WRITES)
    await record.ask("How many?")
    await expect(column(page)).to_contain_text("keeps no conversations now (ConstraintError)")
    await page.evaluate("window.isFull = false")
    await delete_all(page)
    await expect(page.get_by_role("article")).to_have_count(0)
    await expect(column(page)).to_contain_text("No conversations yet.")
    # A reader of the store comes after what the end of the run writes.
    await page.reload()
    await expect(column(page)).to_contain_text("No conversations yet.")
    await expect(kept(page)).to_have_count(0)


async def left_unwritten(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(
        "Object.entries(localStorage).filter(([place]) => place.startsWith('cappella-unwritten')).map(([, text]) => text)"
    )
    return found


async def leave_full(record: PageVisit) -> None:
    """Keep a conversation, and leave the page before more of it is written, to find that nothing can be written any more."""
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await record.context.add_init_script(f"({FAIL_WRITES})()")
        await page.reload()
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")
    [left] = await left_unwritten(page)
    assert "Say it again." in left


@pytest.mark.parametrize("is_all", [False, True])
async def test_what_is_deleted_while_more_of_it_is_left_unwritten_stays_deleted(
    record: PageVisit, is_all: bool
) -> None:
    page = record.page
    await leave_full(record)
    await page.evaluate(LEAVE_ANOTHER)
    if is_all:
        await delete_all(page)
    else:
        await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await expect(column(page)).to_contain_text("No conversations yet.")
    assert [text for text in await left_unwritten(page) if "hello" in text] == []
    assert len(await left_unwritten(page)) == 1
    await record.context.add_init_script("window.isFull = false")
    await page.reload()
    await expect(column(page)).to_contain_text("No conversations yet.")
    await expect(kept(page)).to_have_count(0)


async def test_what_was_left_unwritten_is_dropped_as_soon_as_nothing_may_be_kept(record: PageVisit) -> None:
    await leave_full(record)
    await column(record.page).get_by_role("checkbox", name="Keep conversations").click()
    await expect(column(record.page)).to_contain_text("Nothing is kept")
    assert await left_unwritten(record.page) == []


async def test_nothing_is_put_down_where_nothing_may_be_kept(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await column(page).get_by_role("checkbox", name="Keep conversations").click()
        # A page of this origin that drops nothing.
        await record.open("/assets/main.js")
    assert await left_unwritten(page) == []
