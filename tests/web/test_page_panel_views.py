"""The views of a panel in a real browser: what is read stays, two answers stay as they are written, names are no views."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines, judge_script
from support.long_answers import QUESTION, answer_at_length
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOW_PANEL = """async (panel) => {
  const { memberColumns } = await import("/assets/members.js");
  const { newRun, withChunk } = await import("/assets/run_state.js");
  window.send = (type, fields) => {
    const chunk = { choices: [{ delta: {} }], fusion_event: { type, ...fields } };
    window.panelRun = withChunk(window.panelRun ?? newRun(0), chunk, 1000);
    window.panelColumns.update(window.panelRun, 1000);
  };
  window.panelColumns = memberColumns();
  const place = document.createElement("article");
  place.setAttribute("aria-label", "The panel");
  place.append(window.panelColumns.element);
  document.querySelector("main").prepend(place);
  window.send("run.started", { run_id: "run-1", panel, judge: "judge" });
}"""
READ = {
    "focus": "(text) => text.focus()",
    "scroll": "(text) => { text.scrollTop = 40; }",
    "select": "(text) => getSelection().selectAllChildren(text.querySelector('p'))",
}


async def send(record: PageVisit, kind: str, **fields: Any) -> None:
    await record.page.evaluate("([type, fields]) => window.send(type, fields)", [kind, fields])


async def say(record: PageVisit, name: str, text: str) -> None:
    await send(record, "answer.delta", model=name, delta=text)
    await send(record, "answer.done", model=name, tokens=5, ms=10)


async def panel_of(record: PageVisit, *names: str) -> Locator:
    await record.page.evaluate(SHOW_PANEL, list(names))
    return record.page.get_by_role("article", name="The panel")


def text_of(place: Locator, name: str) -> Locator:
    return place.get_by_role("group", name=f"What {name} says")


@pytest.mark.parametrize("way", [*READ, None])
async def test_what_is_being_read_stays_when_the_judge_writes(
    record: PageVisit, fake_engines: FakeEngines, way: str | None
) -> None:
    pace = asyncio.Semaphore(0)
    answer_at_length(fake_engines)
    fake_engines.let("judge", judge_script(final=Script(("Once.", " Twice."), pace=pace)))
    turn = await record.ask(QUESTION)
    text = text_of(turn, "ann")
    await expect(turn.locator(".points.agree")).to_be_visible(timeout=60_000)
    if way:
        await text.evaluate(READ[way])
    pace.release()
    await expect(turn.locator(".answer")).to_contain_text("Once.")
    if way == "select":  # what was selected is no longer, and the text is still there
        await record.page.evaluate("getSelection().removeAllRanges()")
    pace.release()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    await expect(text).to_be_visible(visible=way is not None)


async def test_two_answers_side_by_side_are_those_of_the_newest_round(record: PageVisit) -> None:
    panel = await panel_of(record, "ann", "bob")
    for name in ("ann", "bob"):
        await say(record, name, f"The first answer of {name}.")
    beside = panel.get_by_role("button", name="Side by side")
    rows = panel.get_by_role("group", name="Two answers")
    await beside.click()
    await expect(rows).to_contain_text("The first answer of bob.")
    await send(record, "round.started", round=2)
    await expect(beside).to_be_hidden()
    await expect(panel.get_by_role("article", name="ann")).to_be_visible()
    for name in ("ann", "bob"):
        await say(record, name, f"The second answer of {name}.")
    await beside.click()
    await expect(rows).to_contain_text("The second answer of bob.")
    await expect(rows).not_to_contain_text("first")
    await send(record, "answer.delta", model="bob", delta=" And one more.")
    await expect(rows).to_contain_text("And one more.")


async def test_a_model_may_have_the_name_of_a_view(record: PageVisit) -> None:
    names = ("all", "pair", "folded", "one")
    panel = await panel_of(record, *names)
    for name in names:
        await say(record, name, f"It is {name} that says this.")
    for name in names:
        await panel.get_by_role("button", name=name, exact=True).click()
        await expect(panel.locator(".members article:visible")).to_have_count(1)
        await expect(text_of(panel, name)).to_be_visible()
        pressed = panel.locator("[aria-pressed=true]")
        await expect(pressed).to_have_text([name])
    await panel.get_by_role("button", name="Side by side").click()
    await expect(panel.get_by_role("group", name="Two answers")).to_contain_text("It is pair that says this.")
    await panel.get_by_role("button", name="All", exact=True).click()
    await expect(panel.locator(".members article:visible")).to_have_count(4)
