"""The conversations of the page in a test: their column, and a question that is answered."""

from playwright.async_api import Locator, Page, expect

from support.browser import PageVisit


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
