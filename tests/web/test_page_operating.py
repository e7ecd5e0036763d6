"""What operators and people who choose look at: an engine's details, the last hour, votes on two ways, a report."""

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from cappella.engines.status import Failure
from cappella.telemetry import figures_history
from support.browser import PageVisit
from support.fake_engines import FakeEngines
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPORT = Path(__file__).parents[2] / "scripts" / "bench_results" / "eval-demo.json"


async def compared(record: PageVisit, question: str = "Say hello.", blind: bool = False) -> Locator:
    """Ask in two ways; returns the place of the vote, which is open."""
    await record.open("/#compare")
    await record.page.get_by_role("textbox", name="Question", exact=True).fill(question)
    if blind:
        await record.page.get_by_label("Blind").check()
    await record.page.get_by_role("button", name="Compare").click()
    vote = record.page.get_by_role("region", name="Your vote", exact=True)
    await expect(vote).to_contain_text("Which answer is better?")
    return vote


async def use_key(record: PageVisit, key: str) -> None:
    await record.page.get_by_role("button", name="Key", exact=True).click()
    await record.page.get_by_role("textbox", name="Key").fill(key)
    await record.page.get_by_role("button", name="Use this key").click()


async def test_an_engine_opens_to_its_facts_its_failures_and_its_log(
    record: PageVisit, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    log = tmp_path / "ann.log"
    log.write_text("first\nthe last line\n")
    fake_engines.logs["ann"] = log
    fake_engines.engines["ann"].status.failures.append(Failure(1.0, "killed by signal 9", None))
    fake_engines.engines["ann"].status.failures.append(Failure(2.0, "out of memory", None))
    page = await record.open("/#machine")
    await page.get_by_role("button", name="Details of ann").press("Enter")
    machine = page.get_by_role("region", name="Engines")
    await expect(machine).to_contain_text("Weights")
    failures = machine.get_by_role("listitem")
    await expect(failures.first).to_contain_text("out of memory")
    await expect(failures.last).to_contain_text("killed by signal 9")
    end = page.get_by_role("group", name="End of the log of ann")
    await expect(end).to_contain_text("the last line")
    with log.open("a") as file:
        file.write("and one more\n")
    await page.get_by_role("button", name="Read again").click()
    await expect(end).to_contain_text("and one more")
    assert await record.accessibility_violations() == []
    await page.get_by_role("button", name="Details of ann").click()
    await expect(end).to_be_hidden()


async def test_the_last_hour_and_the_last_calls_are_shown(record: PageVisit) -> None:
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    await record.page.goto(f"{record.url}/#machine")
    calls = record.page.get_by_role("region", name="Last calls")
    await expect(calls.get_by_role("row").nth(1)).to_contain_text("cappella/default")
    hour = record.page.get_by_role("region", name="The last hour")
    await expect(hour).to_contain_text(f"a sample every {figures_history.SAMPLE_INTERVAL_S:g} s")
    assert await record.accessibility_violations() == []


@pytest.mark.parametrize("width", [360, 1280])
async def test_votes_are_counted_by_way_and_saved_as_questions(
    record: PageVisit, fake_engines: FakeEngines, width: int
) -> None:
    await record.page.set_viewport_size({"width": width, "height": 900})
    vote = await compared(record)
    await vote.get_by_role("button", name="The first").click()
    board = record.page.get_by_role("region", name="Your votes so far")
    await expect(board.get_by_role("row").nth(1)).to_contain_text("default: ann, bob, cat")
    await expect(board.get_by_role("row").nth(1)).to_contain_text("100%")
    assert await record.accessibility_violations() == []
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await record.page.evaluate(sideways) == 0
    async with record.page.expect_download() as saving:
        await board.get_by_role("button", name="Save as questions").click()
    lines = Path(await (await saving.value).path()).read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["Say hello."]
    await record.page.reload()
    await expect(board.get_by_role("row").nth(1)).to_contain_text("100%")
    await board.get_by_role("button", name="Delete all votes").click()
    await board.get_by_role("button", name="Delete all of them?").click()
    await expect(board).to_be_hidden()


@pytest.mark.parametrize(("lot", "first"), [(0.9, "bob"), (0.1, "cat")])
async def test_a_blind_comparison_tells_who_answered_only_after_the_vote(
    record: PageVisit, fake_engines: FakeEngines, lot: float, first: str
) -> None:
    for name in ("bob", "cat"):
        fake_engines.let(name, Script((f"It is {name} who speaks.",)))
    await record.page.add_init_script(f"Math.random = () => {lot}")
    page = await record.open("/#compare")
    await page.reload()
    sides = [page.get_by_role("region", name=name) for name in ("First way", "Second way")]
    for side, model in zip(sides, ("bob", "cat"), strict=True):
        await side.locator("summary").first.click()
        await side.get_by_label("Ensemble or model").select_option(model)
    await page.get_by_role("textbox", name="Question", exact=True).fill("Say hello.")
    await page.get_by_label("Blind").check()
    await page.get_by_role("button", name="Compare").click()
    vote = page.get_by_role("region", name="Your vote", exact=True)
    await expect(vote).to_contain_text("Which answer is better?")
    for side in sides:
        result = side.locator(".result")
        await expect(result).to_contain_text("Answered")
        await expect(result).not_to_contain_text("one model")
        await expect(result.get_by_role("row", name="Total time")).to_contain_text("–")
    await vote.get_by_role("button", name="The first").click()
    for side in sides:
        result = side.locator(".result")
        await expect(result).to_contain_text(re.compile("By (bob|cat), one model"))
        said = await result.inner_text()
        assert ("By bob" in said) == ("It is bob who speaks." in said)
    await expect(sides[0].locator(".result")).to_contain_text(f"It is {first} who speaks.")
    board = page.get_by_role("region", name="Your votes so far")
    await expect(board.get_by_role("row").nth(1)).to_contain_text(f"{first}, one model")


async def test_votes_and_comparisons_of_one_key_are_not_seen_with_another(record: PageVisit) -> None:
    vote = await compared(record)
    await vote.get_by_role("button", name="The first").click()
    board = record.page.get_by_role("region", name="Your votes so far")
    await expect(board).to_be_visible()
    await use_key(record, "another")
    await expect(board).to_be_hidden()
    await expect(record.page.get_by_role("textbox", name="Question", exact=True)).to_have_value("")
    await expect(record.page.get_by_role("region", name="First way")).not_to_contain_text("The final answer")
    await use_key(record, "")
    await expect(board).to_be_visible()


async def test_a_vote_is_not_kept_where_nothing_is_kept(record: PageVisit) -> None:
    await record.page.add_init_script("localStorage.setItem('cappella-keep', 'off')")
    await record.page.reload()
    vote = await compared(record)
    await vote.get_by_role("button", name="The second").click()
    board = record.page.get_by_role("region", name="Your votes so far")
    await expect(board).to_be_visible()
    await record.page.reload()
    await expect(record.page.get_by_role("button", name="Compare")).to_be_visible()
    await expect(board).to_be_hidden()


async def test_a_full_browser_says_that_a_vote_is_not_kept(record: PageVisit) -> None:
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    await record.page.add_init_script(full)
    await record.page.reload()
    vote = await compared(record)
    await vote.get_by_role("button", name="The second").click()
    await expect(vote).to_contain_text("This browser keeps no more votes")


async def test_a_single_model_that_only_thought_says_so(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script((), reasoning="Hm.", finish_reason="length"))
    page = await record.open("/#compare")
    second = page.get_by_role("region", name="Second way")
    await second.locator("summary").first.click()
    await second.get_by_label("Ensemble or model").select_option("bob")
    await page.get_by_role("textbox", name="Question", exact=True).fill("Say hello.")
    await page.get_by_role("button", name="Compare").click()
    await expect(second).to_contain_text("tokens ended while it still thought")


async def test_a_single_model_is_one_of_the_ways(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("Hello from bob",)))
    await record.open("/#compare")
    second = record.page.get_by_role("region", name="Second way")
    await second.locator("summary").first.click()
    await second.get_by_label("Ensemble or model").select_option("bob")
    await expect(second.get_by_label("Judge", exact=True)).to_be_hidden()
    await record.page.get_by_role("textbox", name="Question", exact=True).fill("Say hello.")
    await record.page.get_by_role("button", name="Compare").click()
    await expect(second.locator(".result")).to_contain_text("Hello from bob")
    await expect(second.locator(".result")).to_contain_text("Answered in")
    await record.page.get_by_role("button", name="The second").click()
    board = record.page.get_by_role("region", name="Your votes so far")
    await expect(board.get_by_role("row").nth(1)).to_contain_text("bob, one model")


async def test_a_report_of_an_evaluation_opens_on_the_page(record: PageVisit, tmp_path: Path) -> None:
    page = await record.open("/#eval")
    await page.get_by_label("Report").set_input_files(REPORT)
    await expect(page.get_by_role("region", name="Verdict")).to_contain_text("Use the ensemble with synthesize")
    await expect(page.get_by_role("region", name="Ways").get_by_role("row", name="synthesize")).to_contain_text("83.7%")
    assert await record.accessibility_violations() == []
    other = tmp_path / "other.json"
    other.write_text("{}")
    await page.get_by_label("Report").set_input_files(other)
    await expect(page.get_by_role("alert")).to_contain_text("other.json: This is JSON, but no report of cappella eval")
    await expect(page.get_by_role("region", name="Verdict")).to_be_hidden()
