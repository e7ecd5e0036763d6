"""In a real browser: a conversation that is too long for the models has ways on, and a run that the server keeps an address."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Route, expect

from support.browser import PageVisit, open_page
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, serving
from support.scripted_engine import Json, Script, too_long

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_MESSAGES = 4


def answer(turn: Locator) -> Locator:
    return turn.get_by_role("group", name="Answer")


def read_few(engines: FakeEngines) -> None:
    """Members that read four messages at most."""

    def script(body: Json) -> Script:
        return Script() if len(body["messages"]) <= MOST_MESSAGES else too_long(limit=100)

    for name in MEMBERS:
        engines.let(name, script)


async def too_long_talk(record: PageVisit, fake_engines: FakeEngines) -> Locator:
    """Two turns, and a third for which there is no room."""
    record.refusals = {400}
    read_few(fake_engines)
    for question in ("First?", "Second?"):
        await expect(answer(await record.ask(question))).to_contain_text("The final answer")
    turn = await record.ask("Third?")
    await expect(turn).to_contain_text("The conversation is too long")
    return turn


def contents(fake_engines: FakeEngines) -> list[str]:
    return [each["content"] for each in fake_engines.servers["ann"].bodies[-1]["messages"]]


async def test_the_oldest_turns_are_left_out_from_then_on_and_the_page_says_so(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    turn = await too_long_talk(record, fake_engines)
    assert await record.accessibility_violations() == []
    await turn.get_by_role("button", name="Leave out the oldest turn").click()
    await expect(answer(record.page.get_by_role("article", name="Third?"))).to_contain_text("The final answer")
    await expect(turn).to_contain_text("Asked without the oldest turn, for which there was no more room.")
    assert contents(fake_engines) == ["Second?", "The final answer", "Third?"]
    turn = await record.ask("Fourth?")
    await expect(turn).to_contain_text("The conversation is too long")
    await turn.get_by_role("button", name="Ask only this").click()
    await expect(answer(record.page.get_by_role("article", name="Fourth?"))).to_contain_text("The final answer")
    await expect(turn).to_contain_text("Asked without the 3 oldest turns")
    assert contents(fake_engines) == ["Fourth?"]
    await expect(record.page.locator(".turn")).to_have_count(4)


async def test_a_new_conversation_begins_with_a_summary_of_the_old_one(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    turn = await too_long_talk(record, fake_engines)
    await turn.get_by_role("button", name="Begin anew with a summary").click()
    await expect(page.get_by_role("article", name="Second?")).to_have_count(0)
    turn = page.get_by_role("article", name="Third?")
    await expect(answer(turn)).to_contain_text("The final answer")
    system, question = contents(fake_engines)
    assert system.endswith("The final answer")
    assert question == "Third?"
    await turn.get_by_text("with a system prompt").click()
    await expect(turn).to_contain_text("What was said before, in short:")
    await expect(page.get_by_role("navigation", name="Conversations").get_by_role("link")).to_have_text(
        ["Third?", "First?"]
    )


async def test_a_question_that_alone_is_too_long_is_told_so(record: PageVisit, fake_engines: FakeEngines) -> None:
    record.refusals = {400}
    for name in MEMBERS:
        fake_engines.let(name, too_long(limit=100))
    turn = await record.ask("All of it?")
    await expect(turn).to_contain_text("The question alone is too long")
    await expect(turn.get_by_role("button", name="Edit the question")).to_be_visible()


@pytest.mark.parametrize("content", [True, False])
async def test_a_run_that_the_server_keeps_has_an_address(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path, content: bool
) -> None:
    config = gateway_config()
    runs = {"file": tmp_path / "runs.sqlite", "content": content}
    server = config.server.model_validate({**config.server.model_dump(), "runs": runs})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url, refusals={404}) as record,
    ):
        page = await record.open()
        turn = await record.ask("Say hello.")
        await expect(answer(turn)).to_contain_text("The final answer")
        await turn.get_by_role("link", name="Link to this run").click()
        run = page.locator(".view-run")
        await expect(run.get_by_role("heading", name="Where the time went")).to_be_visible()
        await expect(run).to_contain_text("ann, bob and cat, then judge")
        if content:
            await expect(run).to_contain_text("Say hello.")
            await expect(answer(run)).to_contain_text("The final answer")
            await expect(run.get_by_role("article", name="ann")).to_contain_text("Hello there")
        else:
            await expect(run).to_contain_text("The server keeps no questions and answers")
        assert await record.accessibility_violations() == []
        address = page.url
        await page.goto(url)
        await page.goto(address)
        await expect(run.get_by_role("heading", name="Where the time went")).to_be_visible()
        await page.goto(f"{url}/#run/unknown")
        await expect(run).to_contain_text("No run 'unknown' found")


async def test_the_address_of_a_run_comes_with_the_first_answer_however_late_the_server_says_that_it_keeps_runs(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    config = gateway_config()
    server = config.server.model_validate({**config.server.model_dump(), "runs": {"file": tmp_path / "runs.sqlite"}})
    answered = asyncio.Event()

    async def after_the_answer(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url) as record,
    ):
        await record.page.route("**/api/machine", after_the_answer)
        await record.open()
        turn = await record.ask("Say hello.")
        await expect(record.page.get_by_role("status").filter(has_text="The answer is complete")).to_be_attached()
        answered.set()
        await expect(turn.get_by_role("link", name="Link to this run")).to_be_visible()
