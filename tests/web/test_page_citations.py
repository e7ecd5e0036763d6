"""Citations in a real browser: each shows its passage, to everybody, and the answer has the list of what it cites."""

import pytest
from playwright.async_api import expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines, judge_script
from support.found_passages import FAQ, LONG, RATES, find
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "The allowance is 28 EUR [S1, S9], not 24 [S2].\n\n`rates[S1]`"


@pytest.fixture
def found(fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, RATES, FAQ, LONG)
    fake_engines.let("ann", Script(("It is 28 EUR [S1], or more [S9].",)))
    fake_engines.let("judge", judge_script(Script((ANSWER,))))


@pytest.mark.usefixtures("found")
async def test_a_citation_shows_its_passage_by_keyboard_and_gives_the_focus_back(record: PageVisit) -> None:
    turn = await record.ask("How much?")
    cites = turn.locator(".answer .cite")
    await expect(cites).to_have_text(["[S1]", "[S2]"])
    await expect(turn.locator(".answer code")).to_have_text("rates[S1]")
    card = record.page.get_by_role("dialog", name="S1: Rates 2024, travel/rates.md, page 2")
    await cites.first.focus()
    await record.page.keyboard.press("Enter")
    await expect(card.get_by_text(RATES.text)).to_be_visible()
    await expect(card.get_by_text("Found by ann and bob in handbook")).to_be_visible()
    assert await record.accessibility_violations() == []
    await record.page.keyboard.press("Escape")
    await expect(card).to_be_hidden()
    await expect(cites.first).to_be_focused()


@pytest.mark.usefixtures("found")
async def test_the_answer_lists_what_it_cites_and_folds_the_rest_away(record: PageVisit) -> None:
    turn = await record.ask("How much?")
    found = turn.get_by_role("region", name="Sources of the answer")
    await expect(found.locator("> ul > li > details > summary b")).to_have_text(["S1", "S2"])
    await expect(found.get_by_text("1 more passage was found")).to_be_visible()
    await expect(found.locator("> details")).not_to_have_attribute("open", "")
    await expect(turn.locator(".member-text").first.locator(".cite")).to_have_text(["[S1]"])


async def test_a_passage_is_shown_as_text(
    record: PageVisit, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "<img src=x onerror=alert(1)> **bold** <b>b</b>"
    find(monkeypatch, type(RATES)("handbook", "<i>a</i>.md", "page 1", hostile))
    fake_engines.let("judge", judge_script(Script(("See [S1].",))))
    turn = await record.ask("How much?")
    await turn.locator(".answer .cite").click()
    await expect(record.page.locator(".passage-card .passage")).to_have_text(hostile)
    assert await record.page.locator(".passage-card :is(img, i)").count() == 0


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_sources_fit_a_phone_and_paper(record: PageVisit, scheme: str) -> None:
    await record.page.set_viewport_size({"width": 360, "height": 740})
    await record.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    turn = await record.ask("How much?")
    await turn.locator(".answer .cite").first.click()
    box = await record.page.locator(".passage-card:popover-open").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert await record.accessibility_violations() == []
    await record.page.keyboard.press("Escape")
    width = await record.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    await record.page.emulate_media(media="print")
    await expect(turn.locator(".found > ul b").first).to_be_visible()


@pytest.mark.usefixtures("found")
async def test_a_kept_conversation_keeps_its_sources(record: PageVisit) -> None:
    await record.ask("How much?")
    await expect(record.page.locator(".found")).to_be_visible()
    await record.page.reload()
    await record.page.locator(".kept").get_by_text("How much?").first.click()
    await expect(record.page.locator(".answer .cite")).to_have_text(["[S1]", "[S2]"])
    await expect(record.page.locator(".found > ul b")).to_have_text(["S1", "S2"])


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("blind", [False, True])
async def test_citations_of_compared_answers_and_their_members_show_their_passages(
    record: PageVisit, blind: bool
) -> None:
    page = await record.open("/#compare")
    await page.get_by_role("textbox", name="Question", exact=True).fill("How much?")
    if blind:
        await page.get_by_label("Blind").check()
    await page.get_by_role("button", name="Compare").click()
    vote = page.get_by_role("region", name="Your vote", exact=True)
    await expect(vote).to_contain_text("Which answer is better?")
    if blind:
        await expect(page.locator(".side :is(.cite, .found > h3)")).to_have_count(0)
        await vote.get_by_role("button").first.click()
    side = page.get_by_role("region", name="First way", exact=True)
    await expect(side.locator(".answer .cite")).to_have_text(["[S1]", "[S2]"])
    await expect(side.get_by_role("region", name="Sources of the answer, First way")).to_contain_text("S1")
    await side.get_by_text("The members' answers").click()
    await side.locator(".member-text .cite").first.click()
    card = page.get_by_role("dialog", name="S1: Rates 2024, travel/rates.md, page 2")
    await expect(card.get_by_text(RATES.text)).to_be_visible()
    assert await record.accessibility_violations() == []
