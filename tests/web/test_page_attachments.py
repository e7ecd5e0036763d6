"""Files, images and long pasted texts that go with a question, in a real browser."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, FilePayload, Locator, Page, Route, expect

from cappella.engines.context_size import IMAGE_TOKENS
from cappella.types import Capabilities
from support.browser import PageVisit, open_page
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, serving
from support.kept_page import answered
from support.sample_documents import docx, encrypted_pdf, pdf

pytestmark = pytest.mark.asyncio(loop_scope="session")

READ_MS = 60_000  # a process is started for each document
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
PICTURE_OF = """async (side) => { const canvas = new OffscreenCanvas(side, side / 2); canvas.getContext("2d").fillRect(0, 0, 9, 9);
  const blob = await canvas.convertToBlob(); return [...new Uint8Array(await blob.arrayBuffer())]; }"""
DROP = """(target) => { const data = new DataTransfer(); data.items.add(new File(["a,b\\n1,2"], "table.csv", { type: "text/csv" }));
  for (const kind of ["dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true })); }"""

UNREADABLE = """() => { const read = Blob.prototype.arrayBuffer;
  Blob.prototype.arrayBuffer = function () { return this.size % 2
    ? Promise.reject(new DOMException("gone", "NotFoundError")) : read.call(this); }; }"""


@pytest_asyncio.fixture(loop_scope="session")
async def seeing(browser: Browser, fake_engines: FakeEngines) -> AsyncIterator[PageVisit]:
    """The page of an ensemble whose members take images."""
    config = gateway_config()
    for name in MEMBERS:
        fake_engines.engines[name].capabilities = Capabilities(images=True)
    models = {name: model.model_copy(update={"images": name in MEMBERS}) for name, model in config.models.items()}
    config = config.model_copy(update={"models": models})
    async with serving(fake_engines, config) as url, open_page(browser, url) as record:
        await record.open()
        yield record


def file(name: str, kind: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


async def attach(page: Page, *files: FilePayload) -> None:
    async with page.expect_file_chooser() as chosen:
        await page.get_by_role("button", name="Attach files").click()
    await (await chosen.value).set_files(list(files))


def chips(page: Page) -> Locator:
    return page.get_by_role("list", name="Attachments").get_by_role("listitem")


def question_of(fake_engines: FakeEngines) -> Any:
    return fake_engines.servers["ann"].bodies[-1]["messages"][-1]["content"]


async def test_texts_documents_and_code_are_chips_with_their_tokens(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    fake_engines.servers["judge"].tokens = 1234
    await attach(
        page,
        file("rooms.csv", "text/csv", b"name,room\nGonil,12\n"),
        file("prices.pdf", "application/pdf", pdf(["Tunagox costs 28 dollars."])),
        file("leads.docx", "", docx("Leads", "Tatim is led by Fivind.", [["a"]])),
        file("run.py", "text/x-python", b"print(12)"),
    )
    await expect(chips(page)).to_have_count(4, timeout=READ_MS)
    for at, name in enumerate(("rooms.csv", "prices.pdf", "leads.docx", "run.py")):
        await expect(chips(page).nth(at)).to_contain_text(name)
        await expect(chips(page).nth(at)).to_contain_text("1,234 tokens")
    await expect(page.locator(".tray")).to_contain_text("Too long: 4,936 of the 25 tokens that the models can read")
    assert await record.accessibility_violations() == []
    turn = await answered(record, "What do they cost?")
    sent = question_of(fake_engines)
    for part in (
        "rooms.csv:\n\n```csv\nname,room\nGonil,12\n```",
        "Tunagox costs 28",
        "# Leads\n",
        "```python\nprint(12)",
    ):
        assert part in sent
    assert sent.endswith("What do they cost?")
    await expect(chips(page)).to_have_count(0)
    await turn.locator("summary", has_text="prices.pdf").click()
    await expect(turn.get_by_role("group", name="prices.pdf")).to_contain_text("Tunagox")
    await answered(record, "And now?")
    assert "Gonil,12" in fake_engines.servers["ann"].bodies[-1]["messages"][0]["content"]


async def test_a_chip_is_removed_with_the_keyboard(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    await attach(page, file("a.txt", "text/plain", b"first"), file("b.txt", "text/plain", b"second"))
    await expect(chips(page)).to_have_count(2)
    await page.get_by_role("button", name="Remove a.txt").press("Enter")
    await expect(page.get_by_role("button", name="Remove b.txt")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(chips(page)).to_have_count(0)
    await expect(page.get_by_role("textbox", name="Your question")).to_be_focused()
    await answered(record, "Say hello.")
    assert question_of(fake_engines) == "Say hello."


async def test_what_cannot_be_attached_is_told_and_nothing_is_sent_without_it(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    record.refusals = {400}
    problem = page.locator(".tray").get_by_role("alert")
    for each, words in (
        (file("a.bin", "", bytes(range(256))), "a.bin is no text"),
        (file("a.pdf", "application/pdf", encrypted_pdf("secret")), "a.pdf: The document is encrypted"),
        (file("empty.txt", "text/plain", b" \n"), "empty.txt is empty"),
        (file("a.png", "image/png", PIXEL), "none of these models sees images"),
    ):
        await attach(page, each)
        await expect(problem).to_contain_text(words, timeout=READ_MS)
    await expect(chips(page)).to_have_count(0)
    assert await record.accessibility_violations() == []
    assert fake_engines.servers["ann"].bodies == []


async def test_after_a_file_that_is_gone_others_are_read_and_questions_sent(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page = record.page
    await page.evaluate(UNREADABLE)
    for name in ("gone.txt", "gone.pdf"):
        await attach(page, file(name, "", b"odd"))
        await expect(page.locator(".tray").get_by_role("alert")).to_contain_text(f"{name} cannot be read")
    await attach(page, file("here.txt", "text/plain", b"even"))
    await expect(chips(page)).to_have_count(1)
    await answered(record, "What is here?")
    assert question_of(fake_engines) == "here.txt:\n\n```\neven\n```\n\nWhat is here?"


async def test_a_question_waits_for_its_file(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    await page.get_by_role("textbox", name="Your question").fill("What does it cost?")
    await attach(page, file("prices.pdf", "application/pdf", pdf(["Tunagox costs 28 dollars."])))
    await page.get_by_role("textbox", name="Your question").press("Enter")
    turn = page.get_by_role("article", name="What does it cost?")
    await expect(turn).to_contain_text("The final answer", timeout=READ_MS)
    assert "Tunagox costs 28 dollars." in question_of(fake_engines)


async def test_a_question_that_waits_goes_to_no_other_conversation(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    page, may_arrive = record.page, asyncio.Event()

    async def later(route: Route) -> None:
        await may_arrive.wait()
        await route.continue_()

    await page.route("**/api/documents", later)
    await answered(record, "Hello?")
    asked = len(fake_engines.servers["ann"].bodies)
    box, tray = page.get_by_role("textbox", name="Your question"), page.locator(".tray")
    await box.fill("What does it cost?")
    await attach(page, file("prices.pdf", "application/pdf", pdf(["Tunagox costs 28 dollars."])))
    await box.press("Enter")
    await expect(tray).to_contain_text("Reading prices.pdf… Your question is sent then.")
    await page.get_by_role("button", name="New conversation").first.click()
    may_arrive.set()
    await expect(tray.get_by_role("alert")).to_contain_text("The question was not sent", timeout=READ_MS)
    await expect(box).to_have_value("What does it cost?")
    await expect(chips(page)).to_have_count(1)
    assert len(fake_engines.servers["ann"].bodies) == asked
    await box.press("Enter")
    await expect(page.get_by_role("article", name="What does it cost?")).to_contain_text("The final answer")
    assert "Tunagox costs 28 dollars." in question_of(fake_engines)


async def test_a_file_may_be_dropped_anywhere_on_the_page(record: PageVisit, fake_engines: FakeEngines) -> None:
    page = record.page
    await page.locator(".welcome").evaluate(DROP)
    await expect(chips(page)).to_contain_text("table.csv")
    await page.get_by_role("textbox", name="Your question").press("Enter")
    turn = page.get_by_role("article", name="table.csv")
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    assert question_of(fake_engines) == "table.csv:\n\n```csv\na,b\n1,2\n```"


async def test_models_that_see_get_images_large_ones_made_smaller(seeing: PageVisit, fake_engines: FakeEngines) -> None:
    page = seeing.page
    large = bytes(await page.evaluate(PICTURE_OF, 4000))
    await attach(page, file("dot.png", "image/png", PIXEL), file("large.png", "image/png", large))
    await expect(chips(page)).to_have_count(2)
    await expect(chips(page).first.locator("img")).to_be_visible()
    await expect(chips(page).first).to_contain_text(f"≈ {IMAGE_TOKENS:,} tokens")
    room = "of the 25 tokens that the models can read"
    await expect(page.locator(".tray")).to_contain_text(f"Too long: about {2 * IMAGE_TOKENS:,} {room}")
    turn = await answered(seeing, "What is this?")
    small, larger, text = question_of(fake_engines)
    assert text == {"type": "text", "text": "What is this?"}
    assert base64.b64decode(small["image_url"]["url"].partition(",")[2]) == PIXEL
    assert larger["image_url"]["url"].startswith("data:image/jpeg;base64,")
    await turn.locator("summary", has_text="large.png").click()
    picture = turn.get_by_role("img", name="large.png")
    assert await picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [1568, 784]
