"""The page in a real browser, over scripted engines: asking, watching, stopping, and what can go wrong."""

import json
import re

import pytest
from playwright.async_api import Locator, expect

from support.browser import PageVisit
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, eventually, last_message
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEPT = re.compile("#ask/[0-9a-f]{24}$")
NOTHING = json.dumps({name: [] for name in ANALYSIS})


def member(turn: Locator, name: str) -> Locator:
    return turn.get_by_role("article", name=name, exact=True)


def answer(turn: Locator) -> Locator:
    return turn.get_by_role("group", name="Answer")


async def asked_again(turn: Locator, way: str) -> None:
    await turn.get_by_role("combobox", name="Ask again in another way").select_option(label=way)


async def test_the_answers_of_members_are_shown_while_another_is_still_running(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("cat", Script(("Half an", " answer"), ending="held"))
    turn = await record.ask("Say hello.")
    await expect(member(turn, "ann")).to_contain_text("Hello there")
    await expect(member(turn, "ann")).to_contain_text("done")
    await expect(member(turn, "cat")).to_contain_text("Half an answer")
    await expect(member(turn, "cat")).to_contain_text("writing")
    await expect(turn).to_contain_text("waiting for cat")
    fake_engines.servers["cat"].released.set()
    await expect(answer(turn)).to_contain_text("The final answer")
    await expect(member(turn, "cat")).to_contain_text("done")
    for each in MEMBERS:
        await expect(member(turn, each)).to_contain_text("tokens")


async def test_the_comparison_shows_the_stance_of_each_member(record: PageVisit, fake_engines: FakeEngines) -> None:
    analysis = {
        "consensus": ["both greet"],
        "contradictions": [
            {"topic": "tone", "stances": [{"model": "A", "stance": "warm"}, {"model": "B", "stance": "cold"}]}
        ],
        "partial_coverage": [{"models": ["A", "B"], "point": "the hour"}],
        "unique_insights": [{"model": "C", "insight": "the weather"}],
        "blind_spots": ["the name"],
    }
    fake_engines.let(
        "judge", lambda body: Script((json.dumps(analysis),) if "Now compare" in last_message(body) else ("Hello.",))
    )
    turn = await record.ask("Say hello.")
    await expect(answer(turn)).to_contain_text("Hello.")
    for words in ("both greet", "tone", "warm", "cold", "the hour", "the weather", "the name"):
        await expect(turn).to_contain_text(words)
    terms = await turn.get_by_role("term").all_inner_texts()
    assert len(terms) == 2
    assert set(terms) < set(MEMBERS)


async def test_an_answer_is_shown_as_it_is_written(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let(
        "judge",
        lambda body: Script((NOTHING,)) if "Now compare" in last_message(body) else Script(("Once",), ending="held"),
    )
    turn = await record.ask("Tell me.")
    await expect(answer(turn)).to_contain_text("Once")
    await expect(turn).to_contain_text("judge writes")
    fake_engines.servers["judge"].released.set()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()


async def test_stop_frees_the_engines_and_the_question_can_be_asked_again(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("cat", Script(("Endless",), ending="hang"))
    turn = await record.ask("Say hello.")
    await expect(member(turn, "cat")).to_contain_text("Endless")
    await record.page.get_by_role("button", name="Stop").click()
    assert await eventually(lambda: fake_engines.running == 0)
    await expect(turn).to_contain_text("You stopped this run.")
    fake_engines.let("cat", Script())
    await asked_again(turn, "In the same way")
    await expect(answer(record.page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")


async def test_a_reload_in_mid_stream_frees_the_engines_and_keeps_the_question(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("cat", Script(("Endless",), ending="hang"))
    await expect(member(await record.ask("Say hello."), "cat")).to_contain_text("Endless")
    await expect(record.page).to_have_url(KEPT)
    await record.page.reload()
    assert await eventually(lambda: fake_engines.running == 0)
    turn = record.page.get_by_role("article", name="Say hello.")
    await expect(turn).to_contain_text("cancelled")
    fake_engines.let("cat", Script())
    await asked_again(turn, "In the same way")
    await expect(answer(record.page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")


async def test_a_conversation_goes_on_and_is_there_after_a_reload(record: PageVisit, fake_engines: FakeEngines) -> None:
    await expect(answer(await record.ask("Say hello."))).to_contain_text("The final answer")
    await expect(answer(await record.ask("Say it again."))).to_contain_text("The final answer")
    talk = [(each["role"], each["content"]) for each in fake_engines.servers["ann"].bodies[-1]["messages"]]
    assert talk == [("user", "Say hello."), ("assistant", "The final answer"), ("user", "Say it again.")]
    await expect(record.page).to_have_url(KEPT)
    await record.page.reload()
    await expect(record.page.get_by_role("article", name="Say it again.")).to_contain_text("The final answer")
    await record.page.get_by_role("button", name="New conversation").click()
    await expect(record.page.get_by_role("article")).to_have_count(0)
    await expect(answer(await record.ask("Once more."))).to_contain_text("The final answer")
    assert len(fake_engines.servers["ann"].bodies[-1]["messages"]) == 1


async def test_the_same_may_be_asked_with_another_strategy(record: PageVisit, fake_engines: FakeEngines) -> None:
    turn = await record.ask("Say hello.")
    await expect(answer(turn)).to_contain_text("The final answer")
    fields = {"ann": (1, 1, 9), "bob": (1, 9, 1), "cat": (9, 1, 1)}
    for name, values in fields.items():
        fake_engines.let(name, Script((json.dumps(dict(zip("abc", values, strict=True))),)))
    await asked_again(turn, "With vote")
    turn = record.page.get_by_role("article", name="Say hello.")
    await expect(answer(turn)).to_contain_text(json.dumps({"a": 1, "b": 1, "c": 1}))
    await expect(turn).to_contain_text("vote")
    await record.unfold()
    await expect(turn).to_contain_text("joins the fields that most gave: those of ann, bob and cat.")
    assert len(fake_engines.servers["judge"].bodies) == 2


async def test_panel_and_judge_are_chosen(record: PageVisit, fake_engines: FakeEngines) -> None:
    await record.page.get_by_role("main").locator("summary").first.click()
    await record.page.get_by_role("combobox", name="Judge").select_option("cat")
    await record.page.get_by_role("combobox", name="Strategy").select_option("select")
    await record.page.get_by_role("button", name="Remove a seat of cat").click()
    await record.page.get_by_role("button", name="Add a seat of ann").click()
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    calls = {name: len(server.bodies) for name, server in fake_engines.servers.items()}
    assert (calls["bob"], calls["judge"]) == (1, 0)
    assert calls["ann"] in (1, 2)  # two seats of one model may be one request
    assert "structured_outputs" in fake_engines.servers["cat"].bodies[-1]


async def test_a_member_that_fails_is_explained(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("I was about",), ending="break"))
    turn = await record.ask("Say hello.")
    await expect(answer(turn)).to_contain_text("The final answer")
    await expect(answer(turn)).to_contain_text("Degraded: bob gave no answer")
    await expect(member(turn, "bob")).to_contain_text("failed")
    await expect(member(turn, "bob")).to_contain_text("its engine broke the connection")


async def test_a_judge_that_fails_is_explained(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", Script(("{",), ending="break"))
    turn = await record.ask("Say hello.")
    await expect(answer(turn)).to_contain_text("Hello there")
    await expect(answer(turn)).to_contain_text("Degraded: the judge failed")


async def test_too_few_answers_are_an_error_with_a_way_on(record: PageVisit, fake_engines: FakeEngines) -> None:
    record.refusals = {502}
    for name in ("ann", "bob"):
        fake_engines.let(name, Script(("I was",), ending="break"))
    turn = await record.ask("Say hello.")
    await expect(turn).to_contain_text("Too few members answered")
    for name in ("ann", "bob"):
        fake_engines.let(name, Script())
    await turn.get_by_role("button", name="Ask again", exact=True).click()
    await expect(answer(record.page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")


async def test_a_server_that_is_gone_is_an_error_with_a_way_on(record: PageVisit, fake_engines: FakeEngines) -> None:
    await expect(record.page.get_by_role("textbox", name="Your question")).to_be_visible()
    await record.context.set_offline(True)
    turn = await record.ask("Say hello.")
    await expect(turn).to_contain_text("The server does not answer")
    await record.context.set_offline(False)
    await turn.get_by_role("button", name="Ask again", exact=True).click()
    await expect(answer(record.page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")
    assert record.troubles
    assert all("ERR_INTERNET_DISCONNECTED" in each for each in record.troubles)
    record.troubles.clear()


async def test_enter_sends_and_shift_enter_breaks_the_line(record: PageVisit, fake_engines: FakeEngines) -> None:
    box = record.page.get_by_role("textbox", name="Your question")
    await expect(box).to_have_accessible_description("Enter sends, Shift Enter breaks the line")
    await box.press_sequentially("One")
    await box.press("Shift+Enter")
    await box.press_sequentially("Two")
    await box.press("Enter")
    await expect(answer(record.page.get_by_role("article", name="One"))).to_contain_text("The final answer")
    assert fake_engines.servers["ann"].bodies[-1]["messages"][-1]["content"] == "One\nTwo"
    await expect(box).to_have_value("")


async def test_enter_takes_the_word_of_an_input_method_and_sends_nothing(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    box = record.page.get_by_role("textbox", name="Your question")
    await box.focus()
    devtools = await record.context.new_cdp_session(record.page)
    await devtools.send("Input.imeSetComposition", {"text": "にほんご", "selectionStart": 4, "selectionEnd": 4})
    # Not by Playwright's keyboard, which writes a line break as well: an input method keeps that to itself.
    enter = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
    await devtools.send("Input.dispatchKeyEvent", enter)
    await devtools.send("Input.insertText", {"text": "日本語"})
    await expect(box).to_have_value("日本語")
    await expect(record.page.get_by_role("article")).to_have_count(0)
    await box.press("Enter")
    await expect(record.page.get_by_role("article", name="日本語")).to_be_visible()
