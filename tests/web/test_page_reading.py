"""What one reads on the page, in a real browser: tables, names, questions and pasted texts."""

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from support.browser import LAN_ADDRESS, PageVisit, open_page
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, gateway_config, judge_script, serving
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

TABLE = """
## 1. Approaches

| Approach | Downtime | Extra disk | Old cluster untouched | Difficulty |
|---|---|--:|---|---|
| Logical replication | under two minutes | 2.4 TB | yes | high |
| `pg_upgrade --link` | about 30 minutes | none | no | moderate |
| Dump and restore | more than 14 hours | 1.1 TB | yes | low |
"""
LONG_QUESTION = " ".join(f"Question {number} is about the room of Gonil." for number in range(60))
PASTED = "\n\n".join(f"{number}. The supplier delivers the goods, and the buyer accepts them." for number in range(200))
REASON = "its process ended: Engine 000: Avg prompt throughput: 1.1 tokens/s, Running: 0 reqs, " * 4
LINES = "(name) => { const all = document.createRange(); all.selectNodeContents(name); return all.getClientRects().length; }"
FAILING_COPY = "document.execCommand = () => false"


@pytest_asyncio.fixture(loop_scope="session")
async def lan_visit(browser: Browser, fake_engines: FakeEngines) -> AsyncIterator[PageVisit]:
    """The page as it comes from a plain HTTP address of the local network."""
    async with (
        serving(fake_engines, gateway_config()) as url,
        open_page(browser, url.replace("127.0.0.1", LAN_ADDRESS)) as record,
    ):
        await record.open()
        yield record


def button(turn: Locator, name: str) -> Locator:
    return turn.get_by_role("button", name=name)


async def paste(record: PageVisit, text: str) -> None:
    """Put a text on the clipboard of the page, and paste it into the question."""
    await record.page.evaluate(
        "(text) => { const box = document.getElementById('question'), data = new DataTransfer();"
        " data.setData('text/plain', text);"
        " const paste = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });"
        " if (box.dispatchEvent(paste)) box.setRangeText(text, box.selectionStart, box.selectionEnd, 'end'); }",
        text,
    )


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_table_never_breaks_inside_a_word(record: PageVisit, fake_engines: FakeEngines, width: int) -> None:
    for name in (*MEMBERS, "judge"):
        fake_engines.let(name, Script((TABLE,)))
    fake_engines.let("judge", judge_script(final=Script((TABLE,))))
    await record.page.set_viewport_size({"width": width, "height": 900})
    turn = await record.ask("How do I upgrade?")
    await expect(button(turn, "Copy the answer")).to_be_visible()
    assert await turn.locator(".prose th").count() == 20
    assert await record.broken_words(".prose :is(th, td)") == []
    assert await record.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_name_of_the_comparison_is_a_pill_of_its_own(
    record: PageVisit, fake_engines: FakeEngines, width: int
) -> None:
    await record.page.set_viewport_size({"width": width, "height": 900})
    turn = await record.ask("Say hello.")
    await expect(button(turn, "Copy the answer")).to_be_visible()
    pills = await turn.locator(".points .pill").all_inner_texts()
    assert len(pills) == len(ANALYSIS["partial_coverage"][0]["models"]) + 1
    assert set(pills) <= set(MEMBERS)


@pytest.mark.parametrize("width", [1280, 390])
async def test_an_engine_keeps_its_name_whole_beside_a_long_reason(
    record: PageVisit, fake_engines: FakeEngines, width: int
) -> None:
    await record.page.set_viewport_size({"width": width, "height": 900})
    fake_engines.engines["ann"].status.reason = REASON

    async def rename(route: Route) -> None:
        reply = await route.fetch()
        await route.fulfill(response=reply, body=(await reply.text()).replace('"ann"', '"qwen3-8b-instruct-awq"'))

    await record.page.route("**/api/machine", rename)
    await record.page.get_by_role("link", name="Machine", exact=True).click()
    engines = record.page.get_by_role("table", name="Engines")
    reason = engines.get_by_role("row").filter(has_text="Reason: its process ended")
    await expect(reason).to_have_count(1)
    await expect(reason.get_by_role("cell")).to_have_count(1)
    names = record.page.locator(".machine-table .name", has_text="qwen3-8b-instruct-awq")
    await expect(names).to_have_count(4)
    assert [await name.evaluate(LINES) for name in await names.all()] == [1] * 4
    await expect(engines.get_by_role("row").filter(has_text="bob")).to_be_visible()
    assert await record.page.evaluate("document.documentElement.scrollWidth") <= width
    await record.page.unroute_all(behavior="ignoreErrors")


async def test_a_long_question_is_cut_to_a_few_lines_until_all_is_asked_for(record: PageVisit) -> None:
    turn = await record.ask(LONG_QUESTION)
    question = turn.locator(".question")
    whole = await question.locator(".question-text").evaluate("(text) => text.scrollHeight")
    cut = await question.bounding_box()
    assert cut is not None
    assert cut["height"] < 250 < whole
    await button(turn, "Show all").click()
    await expect(button(turn, "Show less")).to_have_attribute("aria-expanded", "true")
    shown = await question.bounding_box()
    assert shown is not None
    assert shown["height"] > whole
    await expect(button(await record.ask("Short?"), "Show")).to_have_count(0)


async def test_a_question_is_no_larger_than_the_text_of_the_page(record: PageVisit) -> None:
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("heading", name="You asked: Say hello.")).to_be_attached()
    size = "(text) => parseFloat(getComputedStyle(text).fontSize)"
    assert await turn.locator(".question-text").evaluate(size) == await record.page.locator("body").evaluate(size)


async def test_a_long_pasted_text_is_a_chip_that_unfolds(record: PageVisit, fake_engines: FakeEngines) -> None:
    box = record.page.get_by_role("textbox", name="Your question")
    await box.press_sequentially("Please summarise: ")
    await paste(record, PASTED)
    await expect(box).to_have_value("Please summarise: ")
    await box.press("Enter")
    turn = record.page.get_by_role("article", name="Please summarise")
    await expect(button(turn, "Copy the answer")).to_be_visible()
    sent = fake_engines.servers["ann"].bodies[0]["messages"][-1]["content"]
    await expect(record.page).to_have_url(re.compile("#ask/[0-9a-f]{24}$"))
    assert sent == f"Pasted text, 2,200 words:\n\n```\n{PASTED}\n```\n\nPlease summarise:"
    await record.page.reload()
    chip = turn.get_by_text("Pasted text, 2,200 words", exact=True)
    await expect(turn.locator(".question-text")).to_have_text("Please summarise:")
    pasted = turn.get_by_role("group", name="Pasted text")
    await expect(pasted).to_be_hidden()
    await chip.click()
    await expect(pasted).to_contain_text("199. The supplier")
    assert await record.accessibility_violations() == []


async def test_copying_works_where_the_page_came_over_plain_http(
    lan_visit: PageVisit, fake_engines: FakeEngines
) -> None:
    assert not await lan_visit.page.evaluate("isSecureContext || 'clipboard' in navigator")
    code = Script(("Run this:\n\n```sh\necho   two\n```",))
    fake_engines.let("judge", judge_script(final=code))
    turn = await lan_visit.ask("Say hello.")
    box = lan_visit.page.get_by_role("textbox", name="Your question")
    for name, copied in (("Copy code", "echo   two"), ("Copy the answer", "Run this:\n\n```sh\necho   two\n```")):
        await turn.get_by_role("group", name="Answer").get_by_role("button", name=name).click()
        await expect(lan_visit.page.locator("#announcer")).to_have_text("Copied")
        await box.fill("")
        await box.press("Control+V")
        await expect(box).to_have_value(copied)


async def test_copying_that_fails_says_so(lan_visit: PageVisit) -> None:
    await lan_visit.page.evaluate(FAILING_COPY)
    turn = await lan_visit.ask("Say hello.")
    await button(turn, "Copy the answer").click()
    await expect(button(turn, "Copying failed: select the text")).to_be_focused()
    await expect(lan_visit.page.locator("#announcer")).to_contain_text("Copying failed")


async def test_only_the_figures_of_a_comparison_are_aligned_to_the_right(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("judge", judge_script(final=Script((TABLE,)), analysis=Script((json.dumps(ANALYSIS),))))
    await record.page.get_by_role("link", name="Compare", exact=True).click()
    question = record.page.get_by_role("textbox", name="Question", exact=True)
    await question.fill("How do I upgrade?")
    await question.press("Enter")
    await expect(record.page.get_by_role("heading", name="The difference")).to_be_visible()
    for name, ensemble in (("First way", "default"), ("Second way", "fixed")):
        side = record.page.get_by_role("region", name=name)
        await expect(side.locator("summary").first).to_contain_text(f"{ensemble}: ann, bob, cat")
        align = "(cell) => getComputedStyle(cell).textAlign"
        assert await side.get_by_role("cell", name="moderate").evaluate(align) == "left"
        assert await side.get_by_role("cell", name="none").evaluate(align) == "right"
        figures = side.get_by_role("table", name="Time and tokens")
        assert await figures.get_by_role("cell").first.evaluate(align) == "right"
        above, answer = await figures.bounding_box(), await side.locator(".answer").bounding_box()
        assert above is not None
        assert answer is not None
        assert above["y"] < answer["y"]
    assert await record.broken_words(".prose :is(th, td)") == []
