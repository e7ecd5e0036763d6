"""The page in a real browser with answers of real size: three members of 800 words, their comparison, the judge's answer."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from support.browser import PageVisit, open_page
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, last_message, serving
from support.long_answers import (
    INVENTED,
    NAMES,
    QUESTION,
    SHARED,
    analysis,
    answer_at_length,
    judge_answer,
    member_answer,
    words_of,
)
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAIT_MS = 60_000
MARKS = "(answer) => [...answer.querySelectorAll('[data-mark]')].map((span) => span.dataset.mark)"
MARK_WIDTHS = """(answer) => [...answer.querySelectorAll('[data-mark]')]
  .map((span) => getComputedStyle(span, '::after')).map(({ width, fontSize }) => parseFloat(width) / parseFloat(fontSize))"""
MARKED_WRONGLY = ":is(h3, h4, h5, h6, th, td, code, .math) .sentence"
SELECT_FIRST = """(element) => { const range = document.createRange(); range.selectNodeContents(element.querySelector('p'));
  getSelection().removeAllRanges(); getSelection().addRange(range); return String(getSelection()); }"""
COUNT_BLOCKS = """(element) => { window.blocks = { added: 0, removed: 0 };
  new MutationObserver((changes) => changes.forEach(({ addedNodes, removedNodes }) => {
    window.blocks.added += addedNodes.length; window.blocks.removed += removedNodes.length; })).observe(element, { childList: true }); }"""


def member(turn: Locator, name: str) -> Locator:
    return turn.get_by_role("article", name=name, exact=True)


def answer(turn: Locator) -> Locator:
    return turn.get_by_role("group", name="Answer").locator(".answer")


async def asked(record: PageVisit) -> Locator:
    """A turn whose run is over and whose sources are shown."""
    turn = await record.ask(QUESTION)
    await expect(turn.locator(".trace")).to_be_attached(timeout=WAIT_MS)
    return turn


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_an_answer_of_real_size_reads_well(record: PageVisit, fake_engines: FakeEngines, width: int) -> None:
    answer_at_length(fake_engines)
    page = record.page
    await page.set_viewport_size({"width": width, "height": 900})
    turn = await asked(record)
    box = await turn.locator(".question").bounding_box()
    assert box is not None
    assert box["height"] <= 160
    await expect(turn.locator(".katex").first).to_be_attached()
    await expect(turn.locator(".hl-keyword").first).to_be_attached()
    assert await turn.locator(".rest").count() >= 10
    assert await turn.locator(f".answer {MARKED_WRONGLY}").count() == 0
    for layout in ("All", "ann", "Side by side"):
        await turn.get_by_role("button", name=layout, exact=True).click()
        assert await record.broken_words(".prose :is(th, td):not(:has(code))") == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        assert await record.accessibility_violations() == [], scheme


async def test_a_mark_is_one_sign_and_silent_where_all_agree(record: PageVisit, fake_engines: FakeEngines) -> None:
    answer_at_length(fake_engines)
    turn = await asked(record)
    marks = await answer(turn).evaluate(MARKS)
    assert set(marks) <= set("ABC23?")
    assert {len(mark) for mark in marks} == {1}
    assert {round(width, 2) for width in await answer(turn).evaluate(MARK_WIDTHS)} == {1.5}
    invented = turn.locator(".answer .sentence", has_text=INVENTED)
    await expect(invented).to_have_attribute("data-mark", "?")
    await expect(turn.locator(".answer .sentence", has_text=SHARED[1])).not_to_have_attribute("data-mark", "3")
    await turn.get_by_role("button", name="Whose words").click()
    await expect(turn.locator(".trace")).to_be_hidden()
    assert await invented.evaluate("(span) => getComputedStyle(span, '::after').content") == "none"
    await record.page.reload()
    assert await record.page.evaluate("localStorage.getItem('cappella-sources')") == "off"


async def test_the_members_fill_the_page_until_the_judge_writes(record: PageVisit, fake_engines: FakeEngines) -> None:
    pace = asyncio.Semaphore(0)
    answer_at_length(fake_engines)
    judged = fake_engines.servers["judge"].script
    fake_engines.let(
        "judge",
        lambda body: judged(body) if "Now compare" in last_message(body) else Script(("Once.", " Twice."), pace=pace),
    )
    turn = await record.ask(QUESTION)
    text = member(turn, "ann").get_by_role("group", name="What ann says")
    await expect(turn.get_by_role("button", name="Whether checksums matter")).to_be_visible(timeout=WAIT_MS)
    await expect(text).to_be_visible()
    pace.release()
    await expect(answer(turn)).to_contain_text("Once.")
    await expect(text).to_be_hidden()
    pace.release()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    await member(turn, "ann").get_by_role("button", name="Read in full").click()
    await expect(text).to_be_visible()
    await expect(member(turn, "bob")).to_be_hidden()
    sizes = "(text) => [text.clientWidth > 900, text.scrollHeight - text.clientHeight]"
    assert await text.evaluate(sizes) == [True, 0]


async def test_a_view_that_was_chosen_stays_when_the_judge_writes(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("Half",), ending="held"))
    turn = await record.ask("Say hello.")
    await turn.get_by_role("button", name="bob", exact=True).click()
    fake_engines.release()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    await expect(member(turn, "bob").get_by_role("group", name="What bob says")).to_be_visible()


async def test_two_members_side_by_side_have_their_differences_marked(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    answer_at_length(fake_engines)
    turn = await asked(record)
    await turn.get_by_role("button", name="Side by side").click()
    await turn.get_by_role("combobox", name="On the right").select_option("cat")
    await expect(turn.locator(".pair [role=status]")).to_contain_text("of ann", timeout=WAIT_MS)
    left, right = (turn.get_by_role("group", name=name, exact=True) for name in ("ann", "cat"))
    assert await left.count() == await right.count() == 10
    for row in range(10):
        tops = [await side.nth(row).evaluate("(cell) => cell.offsetTop") for side in (left, right)]
        assert tops[0] == tops[1]
    only = await left.locator(".only").all_inner_texts()
    assert "The downtime is under two minutes with logical replication." in only
    assert SHARED[0] not in only


async def test_a_point_of_the_comparison_leads_to_the_sentence_that_it_rests_on(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    answer_at_length(fake_engines)
    turn = await asked(record)
    headings = await turn.locator(".points h4").all_inner_texts()
    assert headings[0] == "Where they disagree"
    assert headings[-1] == "Where they agree"
    await expect(turn.locator(".points code").first).to_have_text("pg_upgrade --link")
    point = turn.locator(".points.agree li", has_text=SHARED[1])
    await expect(point.get_by_role("button")).to_have_count(3, timeout=WAIT_MS)
    await point.get_by_role("button", name="Show where bob says this").click()
    shown = member(turn, "bob").locator(".highlighted").first
    await expect(shown).to_have_text(SHARED[1])
    await expect(shown).to_be_in_viewport()
    await expect(member(turn, "bob").get_by_role("group", name="What bob says")).to_be_focused()


async def test_an_answer_that_no_member_supports_is_marked(record: PageVisit, fake_engines: FakeEngines) -> None:
    answer_at_length(fake_engines)
    judged = fake_engines.servers["judge"].script
    fake_engines.let("judge", lambda body: judged(body) if "Now compare" in last_message(body) else Script((INVENTED,)))
    turn = await asked(record)
    await expect(turn.get_by_role("group", name="Answer")).to_contain_text("The members do not support this answer")
    fake_engines.let("judge", judged)
    turn = await asked(record)
    await expect(turn.get_by_role("group", name="Answer")).not_to_contain_text("do not support")


@pytest_asyncio.fixture(loop_scope="session")
async def patient(browser: Browser, fake_engines: FakeEngines) -> AsyncIterator[PageVisit]:
    """The page over an ensemble that waits for each member."""
    config = gateway_config(grace_s="never", round_timeout_s=300, deadline_s=600)
    async with serving(fake_engines, config) as url, open_page(browser, url) as record:
        await record.open()
        yield record


async def test_what_is_selected_stays_selected_while_answers_grow(
    patient: PageVisit, fake_engines: FakeEngines
) -> None:
    record = patient
    pace = asyncio.Semaphore(0)
    answer_at_length(fake_engines)
    pieces = words_of(member_answer(NAMES[0]))
    fake_engines.let("ann", Script(pieces, pace=pace))
    turn = await record.ask(QUESTION)
    text = member(turn, "ann").get_by_role("group", name="What ann says")
    for _ in range(60):
        pace.release()
    await expect(text).to_contain_text("The publication", timeout=WAIT_MS)
    chosen = await text.evaluate(SELECT_FIRST)
    assert len(chosen) > 50
    await text.evaluate("(text) => { text.scrollTop = 120; }")
    for _ in range(len(pieces)):
        pace.release()
    await expect(text).to_contain_text("A note by", timeout=WAIT_MS)
    assert await text.evaluate("(text) => text.scrollTop") == 120
    await expect(turn.locator(".trace")).to_be_attached(timeout=WAIT_MS)
    # A selection from the beginning of a block may read as one from the end of the block before.
    assert (await record.page.evaluate("String(getSelection())")).strip() == chosen.strip()


async def test_a_block_that_is_finished_is_not_rendered_again(record: PageVisit, fake_engines: FakeEngines) -> None:
    pace = asyncio.Semaphore(0)
    answer_at_length(fake_engines, lambda text: words_of(text, 3))
    pieces = words_of(judge_answer(), 3)
    fake_engines.let(
        "judge",
        lambda body: (
            Script((json.dumps(analysis()),)) if "Now compare" in last_message(body) else Script(pieces, pace=pace)
        ),
    )
    turn = await record.ask(QUESTION)
    # On a busy machine an early prefill of the judge takes some of them.
    for _ in range(5):
        pace.release()
    await expect(answer(turn)).to_contain_text("The", timeout=WAIT_MS)
    await answer(turn).evaluate(COUNT_BLOCKS)
    for _ in range(2 * len(pieces)):
        pace.release()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible(timeout=WAIT_MS)
    blocks = await answer(turn).evaluate("(answer) => answer.children.length")
    counted = await record.page.evaluate("window.blocks")
    # A block may be a paragraph until its second line, or its end, says what it is.
    assert counted["added"] <= 2 * blocks
    assert counted["removed"] <= blocks


async def test_six_seats_have_a_place_each(browser: Browser, fake_engines: FakeEngines) -> None:
    answer_at_length(fake_engines)
    for name in MEMBERS:
        texts = (member_answer(NAMES[0]), member_answer(NAMES[1]))
        fake_engines.let(name, Script(texts[:1], samples=texts))
    config = gateway_config(panel=[name for name in MEMBERS for _ in range(2)])
    size = {"width": 1280, "height": 900}
    async with serving(fake_engines, config) as url, open_page(browser, url, viewport=size) as record:
        await record.open()
        turn = await asked(record)
        await turn.get_by_role("button", name="All", exact=True).click()
        assert await turn.locator(".member").count() == 6
        assert await record.broken_words(".member th") == []
        assert await record.page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert set(await answer(turn).evaluate(MARKS)) <= set("ABCDEF23456?")
