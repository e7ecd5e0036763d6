"""The note of a sentence's sources in a real browser: it stays while one points at it, and hides no sentence in focus."""

import pytest
from playwright.async_api import Locator, expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines
from support.long_answers import QUESTION, answer_at_length

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT_CHANGES = """(note) => { window.changes = 0;
  new MutationObserver(() => { window.changes += 1; }).observe(note, { attributeFilter: ["class"] }); }"""
AT_HEIGHT = "(span, y) => { window.scrollBy(0, span.getBoundingClientRect().top - y); return span.getBoundingClientRect().left; }"
FRAMES = "async () => { for (let at = 0; at < 5; at += 1) await new Promise(requestAnimationFrame); }"
COVERED = """() => { const span = document.activeElement;
  return [...span.getClientRects()].filter(({ left, top, height }) =>
    !span.contains(document.elementFromPoint(left + 3, top + height / 2))).map(({ top }) => `${span.textContent}: ${top}`); }"""


async def traced(record: PageVisit, fake_engines: FakeEngines) -> tuple[Locator, Locator]:
    """The sentences of a long answer and the note of their sources."""
    answer_at_length(fake_engines)
    turn = await record.ask(QUESTION)
    note = turn.locator(".trace")
    await expect(note).to_be_attached(timeout=60_000)
    return turn.locator(".answer .sentence"), note


async def test_a_note_that_comes_under_the_pointer_stays(record: PageVisit, fake_engines: FakeEngines) -> None:
    sentences, note = await traced(record, fake_engines)
    mouse = record.page.mouse
    await mouse.move(2, 200)
    left = await sentences.nth(14).evaluate(AT_HEIGHT, 735)
    await note.evaluate(COUNT_CHANGES)
    await mouse.move(left + 20, 742)
    await expect(note).to_have_class("trace is-current")
    box = await note.bounding_box()
    assert box is not None
    assert box["y"] < 742 < box["y"] + box["height"], "the note is to cover the pointer"
    for step in range(6):
        await mouse.move(left + 21 + step, 742)
        await record.page.evaluate(FRAMES)
    assert await record.page.evaluate("window.changes") == 1
    await expect(note).to_have_class("trace is-current")
    await mouse.move(2, 200)
    await expect(note).to_have_class("trace")


@pytest.mark.parametrize("height", [900, 600])
async def test_arrow_keys_lead_to_sentences_that_are_seen(
    record: PageVisit, fake_engines: FakeEngines, height: int
) -> None:
    await record.page.set_viewport_size({"width": 1280, "height": height})
    sentences, note = await traced(record, fake_engines)
    await sentences.first.focus()
    for key, times in (("ArrowDown", 25), ("ArrowUp", 25)):
        for _ in range(times):
            await record.page.keyboard.press(key)
            await expect(note).to_have_class("trace is-current")
            assert await record.page.evaluate(COVERED) == []
