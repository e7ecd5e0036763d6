"""Kept conversations in a real browser: opened, searched, renamed, deleted, branched, exported, printed; or not kept."""

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from cappella.auth.keys import KeyStore
from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.kept_page import answered, column, kept, start_new
from support.long_answers import QUESTION, answer_at_length
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEFAULT = "cappella/default"
KEPT = re.compile("#ask/[0-9a-f]{24}$")
IN_STORE = """async () => { const asked = indexedDB.open("cappella");
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  if (!database.objectStoreNames.contains("heads")) return 0;
  const counted = database.transaction("heads").objectStore("heads").count();
  return new Promise((done) => { counted.onsuccess = () => done(counted.result); }); }"""


def answer(turn: Locator) -> Locator:
    return turn.get_by_role("group", name="Answer")


async def talked(record: PageVisit, *questions: str) -> None:
    """A conversation for each question, and then a new one."""
    for question in questions:
        await answered(record, question)
        await start_new(record.page)


async def offer_key(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_role("textbox", name="Key").fill(key)
    await dialog.get_by_role("button", name="Use this key").click()


async def test_a_conversation_is_kept_and_opened_again_with_its_runs(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    fake_engines.let("bob", Script(("I was about",), ending="break"))
    await talked(record, "Say hello.", "Say goodbye.")
    page = record.page
    assert await kept(page).all_inner_texts() == ["Say goodbye.", "Say hello."]
    await page.reload()
    await expect(page.get_by_role("article")).to_have_count(0)
    await kept(page).get_by_text("Say hello.").click()
    turn = page.get_by_role("article", name="Say hello.")
    await expect(answer(turn)).to_contain_text("The final answer")
    await expect(answer(turn)).to_contain_text("Degraded: bob gave no answer")
    await expect(turn.get_by_role("article", name="bob")).to_contain_text("its engine broke the connection")
    await expect(turn.get_by_role("heading", name="Where the time went")).to_be_visible()
    await expect(turn).to_contain_text("both greet")
    await expect(kept(page).get_by_text("Say hello.")).to_have_attribute("aria-current", "page")
    calls = len(fake_engines.servers["ann"].bodies)
    await page.reload()
    await expect(answer(turn)).to_contain_text("The final answer")
    assert len(fake_engines.servers["ann"].bodies) == calls
    await page.go_back()
    await answered(record, "And once more?")
    assert len(fake_engines.servers["ann"].bodies) == calls + 1


async def test_a_run_goes_on_while_another_conversation_is_shown(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    fake_engines.let("cat", Script(("Slow",), ending="held"))
    await expect((await record.ask("A slow one.")).get_by_role("article", name="cat")).to_contain_text("Slow")
    await start_new(page)
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    fake_engines.servers["cat"].released.set()
    assert await eventually(lambda: fake_engines.running == 0)
    await kept(page).get_by_text("A slow one.").click()
    await expect(answer(page.get_by_role("article", name="A slow one."))).to_contain_text("The final answer")
    await page.reload()
    await expect(answer(page.get_by_role("article", name="A slow one."))).to_contain_text("The final answer")


async def test_conversations_are_found_by_what_was_asked_and_answered(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    await talked(record, "Say hello.", "Where is Gonil?", "Say goodbye.")
    search = column(record.page).get_by_role("searchbox", name="Search conversations")
    for words, titles in (
        ("GONIL", ["Where is Gonil?"]),
        ("final answer", ["Say goodbye.", "Where is Gonil?", "Say hello."]),
        ("nowhere", []),
        ("", ["Say goodbye.", "Where is Gonil?", "Say hello."]),
    ):
        await search.fill(words)
        await expect(kept(record.page)).to_have_text(titles)
    await search.fill("hello")
    await expect(record.page.locator("#announcer")).to_have_text("1 of 3 conversations")


async def test_a_conversation_is_renamed_with_the_keyboard(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    rename = page.get_by_role("button", name="Rename")
    await rename.press("Enter")
    await page.keyboard.type("Greetings")
    await page.keyboard.press("Enter")
    await expect(rename).to_be_focused()
    await expect(page.get_by_role("heading", name="Greetings")).to_be_visible()
    await rename.press("Enter")
    await page.keyboard.type("Not this")
    await page.keyboard.press("Escape")
    await answered(record, "And again.")
    await expect(kept(page)).to_have_text(["Greetings"])
    await page.reload()
    await expect(page.get_by_role("heading", name="Greetings")).to_be_visible()


async def test_a_deleted_conversation_can_be_had_back(record: PageVisit) -> None:
    page = record.page
    await talked(record, "Say hello.")
    await answered(record, "Say goodbye.")
    for title in ("Say goodbye.", "Say hello."):
        await column(page).get_by_role("button", name=f"Delete “{title}”").click()
        await expect(kept(page)).to_have_count(1)
        undo = page.get_by_role("button", name="Undo")
        await expect(undo).to_be_focused()
        await undo.press("Enter")
        await expect(kept(page)).to_have_text(["Say goodbye.", "Say hello."])
    await expect(answer(page.get_by_role("article", name="Say goodbye."))).to_contain_text("The final answer")
    await column(page).get_by_role("button", name="Delete “Say goodbye.”").click()
    # It is shown as deleted once it is.
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.reload()
    await expect(kept(page)).to_have_text(["Say hello."])


async def test_what_is_deleted_while_it_runs_stays_deleted(record: PageVisit, fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("Endless",), ending="hang"))
    page = record.page
    await expect((await record.ask("Say hello.")).get_by_role("article", name="cat")).to_contain_text("Endless")
    await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    assert await eventually(lambda: fake_engines.running == 0)
    await page.reload()
    await expect(column(page)).to_contain_text("No conversations yet.")
    assert await page.evaluate(IN_STORE) == 0


async def test_all_are_deleted_after_a_question(record: PageVisit) -> None:
    page = record.page
    await talked(record, "Say hello.", "Say goodbye.")
    dialog = page.get_by_role("dialog", name="Delete all conversations?")
    for choice, left in (("Cancel", 2), ("Delete all", 0)):
        await column(page).get_by_role("button", name="Delete all…").click()
        await expect(dialog).to_contain_text("2 kept with this key")
        assert await record.accessibility_violations() == []
        await dialog.get_by_role("button", name=choice, exact=True).click()
        await expect(kept(page)).to_have_count(left)
    assert await page.evaluate(IN_STORE) == 0


async def test_nothing_is_kept_where_the_user_wants_that(record: PageVisit) -> None:
    page = record.page
    switch = column(page).get_by_role("checkbox", name="Keep conversations")
    await switch.uncheck()
    await expect(column(page)).to_contain_text("Nothing is kept")
    await answered(record, "A secret.")
    assert await page.evaluate(IN_STORE) == 0
    assert "secret" not in await page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    await start_new(page)
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_role("article", name="A secret.")).to_be_visible()
    await page.reload()
    await expect(switch).not_to_be_checked()
    await expect(page.get_by_role("article")).to_have_count(0)
    await answered(record, "Not secret.")
    await switch.check()
    await expect(kept(page)).to_have_text(["Not secret."])


async def test_another_key_does_not_see_the_conversations_of_the_first(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    config, keys = gateway_config(), tmp_path / "keys.sqlite"
    first, second = KeyStore(keys).create("ann", ["run"]), KeyStore(keys).create("bob", ["run"])
    server = config.server.model_validate({**config.server.model_dump(), "keys": keys})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url, refusals={401}) as record,
    ):
        page = await record.open()
        await offer_key(page, first)
        await answered(record, "Ann's question.")
        address = page.url
        await page.get_by_role("button", name="Key").click()
        await offer_key(page, second)
        await expect(page.get_by_role("article")).to_have_count(0)
        await expect(column(page)).to_contain_text("No conversations yet.")
        await answered(record, "Bob's question.")
        await page.goto(address)
        await expect(page.get_by_role("main")).to_contain_text("was kept with another key")
        await expect(kept(page)).to_have_text(["Bob's question."])
        await page.get_by_role("button", name="Key").click()
        await offer_key(page, first)
        await expect(kept(page)).to_have_text(["Ann's question."])
        stored = await page.evaluate("JSON.stringify(localStorage)")
        assert first not in stored
        assert second not in stored


async def test_an_earlier_question_is_changed_and_what_was_replaced_can_be_had_back(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    first = await answered(record, "Say hello.")
    await answered(record, "Say it again.")
    await first.get_by_role("button", name="Edit the question").click()
    field = first.get_by_role("textbox", name="Change the question")
    await expect(field).to_have_value("Say hello.")
    await field.press("Escape")
    await expect(field).to_have_count(0)
    await first.get_by_role("button", name="Edit the question").click()
    await field.fill("Say hi.")
    await field.press("Enter")
    await expect(answer(page.get_by_role("article", name="Say hi."))).to_contain_text("The final answer")
    talk = [each["content"] for each in fake_engines.servers["ann"].bodies[-1]["messages"]]
    assert talk == ["Say hi."]
    await expect(page.locator(".turn")).to_have_count(1)
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".turn")).to_have_count(2)
    await answered(record, "And now?")
    talk = [each["content"] for each in fake_engines.servers["ann"].bodies[-1]["messages"]]
    assert talk == ["Say hello.", "The final answer", "Say it again.", "The final answer", "And now?"]


async def test_a_branch_goes_on_from_a_turn_and_leaves_the_rest_alone(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    first = await answered(record, "Say hello.")
    await answered(record, "Say it again.")
    await first.get_by_role("button", name="Branch from here").click()
    await expect(page.locator(".turn")).to_have_count(1)
    await answered(record, "Another way.")
    talk = [each["content"] for each in fake_engines.servers["ann"].bodies[-1]["messages"]]
    assert talk == ["Say hello.", "The final answer", "Another way."]
    await expect(kept(page)).to_have_text(["Say hello. (branch)", "Say hello."])
    await kept(page).get_by_text("Say hello.", exact=True).click()
    await expect(page.get_by_role("article", name="Say it again.")).to_be_visible()


async def test_a_system_prompt_and_sampling_go_with_each_question_until_changed(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    await page.locator(".composer summary").click()
    await page.get_by_role("textbox", name="System prompt").fill("Be brief.")
    await page.get_by_role("spinbutton", name="Temperature").fill("0.2")
    await page.get_by_role("spinbutton", name="Longest answer, in tokens").fill("50")
    for question in ("Say hello.", "Say it again."):
        turn = await answered(record, question)
        await expect(turn).to_contain_text("temperature 0.2 · at most 50 tokens · with a system prompt")
        body = fake_engines.servers["ann"].bodies[-1]
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["temperature"], body["max_completion_tokens"]) == (0.2, 50)
    assert fake_engines.servers["judge"].bodies[-1]["temperature"] == 0.2
    await expect(page).to_have_url(KEPT)
    await page.reload()
    await page.locator(".composer summary").click()
    await expect(page.get_by_role("textbox", name="System prompt")).to_have_value("Be brief.")


async def test_a_conversation_is_saved_as_markdown_and_as_json_with_its_trace(record: PageVisit) -> None:
    await answered(record, "Say hello: to Ann/Bob")
    save = record.page.get_by_role("combobox", name="Save this conversation")
    files = {}
    for way in ("As Markdown", "As JSON, with the trace"):
        async with record.page.expect_download() as saved:
            await save.select_option(label=way)
        download = await saved.value
        files[download.suggested_filename] = Path(await download.path()).read_text()
    assert set(files) == {"Say-hello-to-Ann-Bob.md", "Say-hello-to-Ann-Bob.json"}
    assert "## Answer\n\nThe final answer" in files["Say-hello-to-Ann-Bob.md"]
    assert "<summary>ann answered</summary>\n\nHello there" in files["Say-hello-to-Ann-Bob.md"]
    run = json.loads(files["Say-hello-to-Ann-Bob.json"])["turns"][0]["run"]
    assert run["fusion"]["run_id"] == run["runId"]
    assert {call["role"] for call in run["usage"]["fusion_details"]} >= {"panel", "analysis", "final"}


async def test_print_has_all_of_the_conversation_and_none_of_the_controls(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    answer_at_length(fake_engines)
    page = record.page
    turn = await record.ask(" ".join([QUESTION] * 12))
    await expect(turn.locator(".trace")).to_be_attached(timeout=60_000)
    await page.get_by_role("button", name="Dark colours").click()
    await page.emulate_media(media="print")
    paper = "(all) => ['backgroundColor', 'colorScheme'].map((name) => getComputedStyle(all[0])[name])"
    assert await page.locator("html").evaluate_all(paper) == ["rgb(255, 255, 255)", "light"]
    title = page.locator(".kept-title")
    assert await title.evaluate("(title) => title.scrollWidth <= title.clientWidth")
    for control in (".top", ".composer", ".kept", ".actions", ".views", ".code-head button"):
        await expect(page.locator(control).first).to_be_hidden()
    cut = "(all) => all.filter((each) => each.scrollHeight > each.clientHeight + 1 && each.clientHeight).length"
    assert await page.locator(".question-text, .member-text").evaluate_all(cut) == 0
    assert await turn.locator(".member-text").first.is_visible()


async def test_two_tabs_on_one_conversation_lose_no_turn(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(page).to_have_url(KEPT)
    other = await record.context.new_page()
    await other.goto(page.url)
    await expect(other.get_by_role("article", name="Say hello.")).to_be_visible()
    await answered(record, "Here.")
    box = other.get_by_role("textbox", name="Your question")
    await box.fill("There.")
    await box.press("Enter")
    await expect(answer(other.get_by_role("article", name="There."))).to_contain_text("The final answer")
    await expect(kept(other)).to_have_count(2)
    await other.reload()
    await expect(other.get_by_role("article", name="There.")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("article", name="Here.")).to_be_visible()
    await expect(kept(page)).to_have_count(2)


async def test_the_column_folds_away_where_there_is_no_room(record: PageVisit) -> None:
    page = record.page
    await page.set_viewport_size({"width": 768, "height": 900})
    await answered(record, "Say hello.")
    await expect(column(page)).to_be_hidden()
    await page.get_by_role("button", name="New conversation").click()
    opener = page.get_by_role("button", name="Conversations", exact=True)
    await opener.press("Enter")
    await expect(column(page)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(column(page)).to_be_hidden()
    await expect(opener).to_be_focused()
    await opener.click()
    await kept(page).get_by_text("Say hello.").click()
    await expect(column(page)).to_be_hidden()
    await expect(answer(page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_no_conversation_has_a_barrier(browser: Browser, fake_engines: FakeEngines, width: int) -> None:
    async with (
        serving(fake_engines, gateway_config()) as url,
        open_page(browser, url, viewport={"width": width, "height": 900}) as record,
    ):
        page = await record.open()
        turn = await answered(record, "Say hello.")
        await turn.get_by_role("button", name="Edit the question").click()
        assert await record.violations_light_and_dark() == []
        await page.keyboard.press("Escape")
        await expect(page).to_have_url(KEPT)
        await page.reload()
        await expect(answer(turn)).to_contain_text("The final answer")
        if width < 1100:
            await page.get_by_role("button", name="Conversations", exact=True).click()
        await column(page).get_by_role("button", name="Delete “Say hello.”").click()
        await expect(page.get_by_role("button", name="Undo")).to_be_focused()
        assert await record.violations_light_and_dark() == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_browser_that_cannot_keep_anything_says_so(record: PageVisit) -> None:
    page = record.page
    await page.add_init_script("IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); }")
    await page.reload()
    await expect(column(page)).to_contain_text("This browser keeps no conversations now (SecurityError).")
    await answered(record, "Say hello.")


async def test_a_conversation_opens_where_its_ensemble_is_no_more(browser: Browser, fake_engines: FakeEngines) -> None:
    config = gateway_config()
    async with serving(fake_engines, config) as url, open_page(browser, url, refusals={404}) as record:
        page = await record.open()
        await answered(record, "Say hello.")
        models = f"{url}/v1/models"

        async def without_default(route: Route) -> None:
            reply = await (await route.fetch()).json()
            await route.fulfill(json={**reply, "data": [each for each in reply["data"] if each["id"] != DEFAULT]})

        await page.route(models, without_default)
        await expect(page).to_have_url(KEPT)
        await page.reload()
        await expect(answer(page.get_by_role("article", name="Say hello."))).to_contain_text("The final answer")
        await expect(page.locator(".options-summary")).to_contain_text("fixed: ann, bob, cat")
        await answered(record, "And now?")
        await page.unroute_all(behavior="ignoreErrors")


async def test_another_tab_shows_what_was_kept_here(record: PageVisit) -> None:
    other = await record.context.new_page()
    await other.goto(record.url)
    await expect(column(other)).to_contain_text("No conversations yet.")
    await answered(record, "Say hello.")
    await expect(kept(other)).to_have_text(["Say hello."])
    await kept(other).first.focus()
    await answered(record, "And again.")
    await record.page.get_by_role("button", name="Rename").click()
    await record.page.keyboard.type("Greetings")
    await record.page.keyboard.press("Enter")
    await expect(kept(other)).to_have_text(["Greetings"])
    await expect(kept(other)).to_be_focused()
