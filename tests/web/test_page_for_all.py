"""The page for everybody: no barrier that axe knows of, by keyboard alone, on a phone, light and dark."""

import json

import pytest
from playwright.async_api import Browser, expect

from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, gateway_config, last_message, serving
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEWS = ("ask", "compare", "eval", "machine")
ANSWER = "# Rooms\n\nGonil is in **room 12** [as said](https://example.invalid/).\n\n```python\nprint(12)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
ANALYSIS = {
    "consensus": ["Gonil has a room"],
    "contradictions": [
        {"topic": "the room", "stances": [{"model": "A", "stance": "room 12"}, {"model": "B", "stance": "room 7"}]}
    ],
    "partial_coverage": [{"models": ["A", "B"], "point": "the floor"}],
    "unique_insights": [{"model": "C", "insight": "it is cold"}],
    "blind_spots": ["the building"],
}


def disagree(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script((ANSWER,), reasoning="Let me think."))
    fake_engines.let("bob", Script(("Gonil is in room 7.",)))
    fake_engines.let("cat", Script(("It is cold",), ending="break"))
    fake_engines.let(
        "judge", lambda body: Script((json.dumps(ANALYSIS) if "Now compare" in last_message(body) else ANSWER,))
    )


async def at(record: PageVisit, view: str) -> None:
    await record.page.evaluate(f"location.hash = '#{view}'")
    await expect(record.page.get_by_role("link", name=view.capitalize(), exact=True)).to_have_attribute(
        "aria-current", "page"
    )
    await record.page.wait_for_load_state("networkidle")
    await expect(record.page.get_by_role("heading", level=1).first).to_be_visible()


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (360, "dark"), (768, "dark"), (1280, "light"), (1280, "dark")]
)
async def test_no_view_has_a_barrier(browser: Browser, fake_engines: FakeEngines, scheme: str, width: int) -> None:
    disagree(fake_engines)
    size = {"width": width, "height": 900}
    async with (
        serving(fake_engines, gateway_config()) as url,
        open_page(browser, url, viewport=size, color_scheme=scheme) as record,
    ):
        await record.open()
        for view in VIEWS:
            await at(record, view)
            assert await record.accessibility_violations() == []
        await at(record, "ask")
        for question in ("In which room is Gonil?", "Are you sure?"):
            turn = await record.ask(question)
            await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
        await record.unfold()
        assert await record.accessibility_violations() == []


async def test_a_run_that_is_under_way_or_was_stopped_has_no_barrier(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("cat", Script(("Endless",), ending="hang"))
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("article", name="cat")).to_contain_text("Endless")
    assert await record.accessibility_violations() == []
    await record.page.get_by_role("button", name="Stop").click()
    await expect(turn).to_contain_text("You stopped this run.")
    assert await record.accessibility_violations() == []


async def test_a_phone_shows_it_without_scrolling_sideways(record: PageVisit, fake_engines: FakeEngines) -> None:
    long = "W" * 300
    fake_engines.let("ann", Script((f"{long}\n\n```\n{long}\n```\n\n| {long} | b |\n|---|---|\n| c | d |",)))
    fake_engines.let(
        "judge",
        lambda body: Script(
            (json.dumps(ANALYSIS),) if "Now compare" in last_message(body) else (f"{long}\n```\n{long}\n```",)
        ),
    )
    await record.page.set_viewport_size({"width": 360, "height": 740})
    await record.ask(f"Why {long}?")
    await expect(record.page.get_by_role("button", name="Copy the answer")).to_be_visible()
    for view in VIEWS:
        await at(record, view)
        assert await record.page.evaluate("document.documentElement.scrollWidth") <= 360, view


async def test_a_question_is_asked_with_the_keyboard_alone(record: PageVisit) -> None:
    page = record.page
    await expect(page.get_by_role("textbox", name="Your question")).to_be_focused()
    await page.keyboard.type("Say hello.")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    turn = page.get_by_role("article", name="Say hello.")
    await expect(turn.get_by_role("group", name="Answer")).to_contain_text("The final answer")
    await expect(page.locator("#announcer")).to_have_text("The answer is complete")


async def test_the_keyboard_can_skip_to_the_content(record: PageVisit) -> None:
    page = record.page
    await expect(
        page.get_by_role("textbox", name="Your question")
    ).to_be_focused()  # it takes the focus once it is there
    first = page.locator(":is(a[href], button, input, select, textarea, summary):visible").first
    await expect(first).to_have_text("Skip to the content")
    await first.focus()
    await expect(first).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()


async def test_light_or_dark_is_kept(record: PageVisit) -> None:
    page = record.page
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light = await page.evaluate(colour)
    await page.get_by_role("button", name="Dark colours").click()
    dark = await page.evaluate(colour)
    await page.reload()
    assert light != dark
    assert await page.evaluate(colour) == dark
