"""What is kept of conversations in a real browser, where things happen at once: runs that end, tabs, keys, full disks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from cappella.auth.keys import KeyStore
from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.kept_page import FAIL_WRITES, answer, answered, column, kept, start_new, stores_held
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT_KEPT = """async () => { const asked = indexedDB.open("cappella");
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  const counted = database.transaction("heads").objectStore("heads").count();
  const count = await new Promise((done) => { counted.onsuccess = () => done(counted.result); });
  database.close();
  return count; }"""

DELETE_STORES = """() => { const asked = indexedDB.deleteDatabase("cappella");
  return new Promise((done) => { asked.onsuccess = asked.onblocked = (event) => done(event.type); }); }"""
CHAT = "**/v1/chat/completions"


async def refuse(route: Route) -> None:
    error = {"message": "Busy.", "code": "overloaded"}
    await route.fulfill(status=429, headers={"Retry-After": "30"}, json={"error": error})


async def test_a_conversation_opened_before_its_result_is_kept_has_the_result(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    async with stores_held(page):
        await answered(record, "Say it again.")
        await start_new(page)
        await kept(page).get_by_text("Say hello.").click()
    await expect(answer(page, "Say it again.")).to_contain_text("The final answer")
    await answered(record, "And now?")
    await expect(kept(page)).to_have_text(["Say hello."])


async def test_of_two_conversations_opened_the_later_one_is_shown(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await start_new(page)
    fake_engines.let("cat", Script(("Slow",), ending="hang"))
    await record.ask("A slow one.")
    await expect(kept(page)).to_have_text(["A slow one.", "Say hello."])
    await start_new(page)
    async with stores_held(page):
        await kept(page).get_by_text("Say hello.").click()
        await kept(page).get_by_text("A slow one.").click()
        await expect(page.get_by_role("article", name="A slow one.")).to_be_visible()
    for _ in range(5):
        await page.evaluate(COUNT_KEPT)
    await expect(kept(page).get_by_text("A slow one.")).to_have_attribute("aria-current", "page")
    await expect(page.get_by_role("article", name="A slow one.")).to_be_visible()


@pytest.mark.parametrize("way", ["Delete “Say hello.”", "New conversation"])
async def test_a_note_out_of_sight_asks_nothing_of_itself(record: PageVisit, way: str) -> None:
    record.refusals = {429}
    page = record.page
    await page.clock.install()
    await page.reload()
    await page.route(CHAT, refuse)
    turn = await record.ask("Say hello.")
    await turn.get_by_role("checkbox", name="Ask again automatically").check()
    await expect(kept(page)).to_have_text(["Say hello."])
    await column(page).get_by_role("button", name=way).click()
    await expect(page.get_by_role("article")).to_have_count(0)
    asked = sum(url.endswith("/v1/chat/completions") for url in record.requested)
    await page.clock.run_for(60_000)
    await page.evaluate("fetch('/api/machine').then(() => null)")
    assert sum(url.endswith("/v1/chat/completions") for url in record.requested) == asked
    await page.unroute_all(behavior="ignoreErrors")


async def test_a_note_that_is_seen_again_can_be_used(record: PageVisit) -> None:
    record.refusals = {429}
    page = record.page
    await page.route(CHAT, refuse)
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("button", name="Ask again", exact=True)).to_be_disabled()
    await column(page).get_by_role("button", name="Delete “Say hello.”").click()
    await page.unroute_all(behavior="ignoreErrors")
    await page.get_by_role("button", name="Undo").click()
    await turn.get_by_role("button", name="Ask again", exact=True).click()
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")


async def test_a_full_disk_is_told_until_there_is_room_and_makes_no_second_conversation(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.evaluate(FAIL_WRITES)
    await answered(record, "Say it again.")
    await page.evaluate(COUNT_KEPT)
    await expect(column(page)).to_contain_text("This browser keeps no conversations now (ConstraintError).")
    await page.evaluate("window.isFull = false")
    await answered(record, "And now?")
    await expect(column(page)).not_to_contain_text("keeps no conversations")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.reload()
    await expect(answer(page, "And now?")).to_contain_text("The final answer")


async def test_two_tabs_whose_runs_end_at_once_lose_no_turn(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    other = await record.context.new_page()
    await other.goto(page.url)
    await expect(other.get_by_role("article", name="Say hello.")).to_be_visible()
    async with stores_held(page):
        await answered(record, "Here.")
        box = other.get_by_role("textbox", name="Your question")
        await box.fill("There.")
        await box.press("Enter")
        await expect(answer(other, "There.")).to_contain_text("The final answer")
    await expect(kept(page)).to_have_count(2)
    for tab, question in ((page, "Here."), (other, "There.")):
        await tab.reload()
        await expect(answer(tab, question)).to_contain_text("The final answer")


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.sqlite")


@pytest_asyncio.fixture(loop_scope="session")
async def keyed(
    browser: Browser, fake_engines: FakeEngines, keys: KeyStore, tmp_path: Path
) -> AsyncIterator[PageVisit]:
    """The page of a server with keys, opened with one."""
    config = gateway_config()
    server = config.server.model_validate({**config.server.model_dump(), "keys": tmp_path / "keys.sqlite"})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url, refusals={401}) as keyed,
    ):
        page = await keyed.open()
        await offer_key(page, keys.create("ann", ["run"]))
        await expect(page.get_by_role("textbox", name="Your question")).to_be_visible()
        yield keyed


async def offer_key(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_role("textbox", name="Key").fill(key)
    await dialog.get_by_role("button", name="Use this key").click()


async def test_another_key_sees_no_draft_of_the_first(keyed: PageVisit, keys: KeyStore) -> None:
    page = keyed.page
    box = page.get_by_role("textbox", name="Your question")
    prompt = page.get_by_role("textbox", name="System prompt")
    await page.locator(".composer summary").click()
    await prompt.fill("Ann's prompt.")
    await page.locator("input[type=file]").set_input_files(
        {"name": "anns.txt", "mimeType": "text/plain", "buffer": b"Ann's file."}
    )
    await expect(page.get_by_role("button", name="Remove anns.txt")).to_be_visible()
    await box.fill("Ann's draft.")
    await page.get_by_role("button", name="Key", exact=True).click()
    await offer_key(page, keys.create("bob", ["run"]))
    await expect(page.get_by_role("button", name="Remove anns.txt")).to_have_count(0)
    await expect(box).to_have_value("")
    await page.locator(".composer summary").click()
    await expect(prompt).to_have_value("")
    await answered(keyed, "Bob's question.")


@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_a_refused_conversation_goes_on_with_another_key_on_the_same_visit_only(
    keyed: PageVisit, keys: KeyStore, is_reloaded: bool
) -> None:
    page = keyed.page

    async def refuse_key(route: Route) -> None:
        await route.fulfill(status=401, json={"error": {"message": "Unknown key.", "code": "invalid_api_key"}})

    await page.route(CHAT, refuse_key)
    turn = await keyed.ask("Ann's question.")
    await page.get_by_role("dialog", name="API key").get_by_role("button", name="Cancel").click()
    await expect(kept(page)).to_have_text(["Ann's question."])
    await page.unroute_all(behavior="ignoreErrors")
    if is_reloaded:
        await page.reload()
        await expect(turn).to_contain_text("A key is needed")
    await page.get_by_role("button", name="Key", exact=True).click()
    await offer_key(page, keys.create("bob", ["run"]))
    await expect(kept(page)).to_have_count(0)
    await expect(page.get_by_role("article")).to_have_count(0 if is_reloaded else 1)


async def test_a_tab_lets_go_of_what_is_kept_for_another_version_and_opens_it_anew(record: PageVisit) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    assert await page.evaluate(DELETE_STORES) == "success"
    await answered(record, "Say it again.")
    await expect(kept(page)).to_have_text(["Say hello."])
    assert await page.evaluate(COUNT_KEPT) == 1


async def test_a_name_that_is_being_typed_outlasts_the_end_of_a_run(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    fake_engines.let("cat", Script(("Slow",), ending="held"))
    turn = await record.ask("Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await page.get_by_role("button", name="Rename").click()
    name = page.get_by_role("textbox", name="Name of the conversation")
    await name.fill("Greet")
    for changes in ({"isComposing": True, "keyCode": 27}, {"keyCode": 229}):
        await name.dispatch_event("keydown", {"key": "Escape", "bubbles": True, **changes})
    fake_engines.servers["cat"].released.set()
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    assert await page.evaluate(COUNT_KEPT) == 1
    await page.keyboard.type("ings")
    await page.keyboard.press("Enter")
    await expect(kept(page)).to_have_text(["Greetings"])
    await expect(page.get_by_role("heading", name="Greetings")).to_be_visible()


async def test_on_a_wide_touch_screen_the_button_that_deletes_is_seen(
    browser: Browser, fake_engines: FakeEngines
) -> None:
    touch: dict[str, Any] = {"has_touch": True, "is_mobile": True}
    async with serving(fake_engines, gateway_config()) as url, open_page(browser, url, **touch) as record:
        page = await record.open()
        assert await page.evaluate("matchMedia('(hover: none)').matches && innerWidth >= 1100")
        await answered(record, "Say hello.")
        await expect(kept(page)).to_have_text(["Say hello."])
        delete = column(page).get_by_role("button", name="Delete “Say hello.”")
        await expect(delete).to_have_css("opacity", "1")
        # Both at one time: the list is drawn anew when a run is kept.
        gap_px = await column(page).evaluate(
            "(column) => column.querySelector('[aria-label^=Delete]').getBoundingClientRect().left"
            " - column.querySelector('a').getBoundingClientRect().right"
        )
        assert gap_px >= -1


async def test_a_question_changed_while_another_runs_waits_and_is_not_lost(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    first = await answered(record, "Say hello.")
    fake_engines.let("cat", Script(("Slow",), ending="held"))
    await record.ask("A slow one.")
    await first.get_by_role("combobox", name="Ask again in another way").select_option(label="In the same way")
    await expect(first.get_by_role("alert")).to_contain_text("Another question of this conversation is being answered")
    await first.get_by_role("button", name="Edit the question").click()
    field = first.get_by_role("textbox", name="Change the question")
    await field.fill("Say hi.")
    await field.press("Enter")
    await expect(first.locator(".editor").get_by_role("alert")).to_contain_text("stop that, or wait for it")
    await expect(field).to_have_value("Say hi.")
    fake_engines.servers["cat"].released.set()
    await expect(first.get_by_role("alert")).to_have_count(0)
    await field.press("Enter")
    await expect(answer(page, "Say hi.")).to_contain_text("The final answer")
    await expect(page.locator(".turn")).to_have_count(1)


async def test_a_conversation_that_no_request_holds_has_a_way_on(record: PageVisit) -> None:
    record.refusals = {413}
    page = record.page
    await answered(record, "Say hello.")

    async def refuse_size(route: Route) -> None:
        await route.fulfill(status=413, json={"error": {"message": "Too large.", "code": "body_too_large"}})

    await page.route(CHAT, refuse_size)
    turn = await record.ask("Say it again.")
    await expect(turn).to_contain_text("The request is too long")
    await page.unroute_all(behavior="ignoreErrors")
    await turn.get_by_role("button", name="Ask only this").click()
    await expect(answer(page, "Say it again.")).to_contain_text("The final answer")


async def test_what_is_not_kept_can_be_had_back_after_another_was_opened(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    await answered(record, "Say hello.")
    await expect(kept(page)).to_have_text(["Say hello."])
    await start_new(page)
    await column(page).get_by_role("checkbox", name="Keep conversations").uncheck()
    fake_engines.let("cat", Script(("Endless",), ending="hang"))
    secret = await record.ask("A secret.")
    await expect(secret.get_by_role("article", name="cat")).to_contain_text("Endless")
    await kept(page).get_by_text("Say hello.").click()
    await expect(answer(page, "Say hello.")).to_contain_text("The final answer")
    assert await eventually(lambda: fake_engines.running == 0)
    await page.get_by_role("button", name="Undo").click()
    await expect(secret).to_contain_text("You stopped this run.")
    fake_engines.let("cat", Script())
    turn = await answered(record, "Another secret.")
    await turn.get_by_role("button", name="Branch from here").click()
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".turn")).to_have_count(2)
