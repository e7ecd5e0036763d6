"""Batches in a real browser: listed with their progress, opened, downloaded, cancelled, made, and let go on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from playwright.async_api import Browser, Locator, Page, expect

from cappella.auth.keys import KeyStore
from support.batch_clients import batching, create, ended, upload
from support.batch_gateway import asked, batch_config, write_weights
from support.browser import PageVisit, open_page
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.kept_gateway import client, hold
from support.scripted_engine import Script
from support.stored_batches import CHAT, body, lines_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEGINNING = """async ([path, bytes]) => {
  const { api } = await import("/assets/api.js");
  const { text, isAll } = await api.beginning(path, bytes);
  return [text, isAll];
}"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
THREE = (body("one"), body("two", model="ann"), body("three", temperature=5))


@asynccontextmanager
async def visiting(
    browser: Browser, fake_engines: FakeEngines, folder: Path, **context: Any
) -> AsyncIterator[tuple[PageVisit, AsyncOpenAI]]:
    """The page over a gateway that takes batches, and a client of it."""
    async with (
        batching(fake_engines, folder) as url,
        client(url) as stock,
        open_page(browser, url, **context) as record,
    ):
        yield record, stock


def card(page: Page, name: str = "in.jsonl") -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("link", name=name))


def part(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


async def opened(record: PageVisit, batch_id: str) -> Page:
    page = await record.open(f"/#batches/{batch_id}")
    await expect(page.get_by_role("link", name="All batches")).to_be_visible()
    return page


async def downloaded(page: Page, button: str) -> list[Any]:
    async with page.expect_download() as saving:
        await page.get_by_role("button", name=button).click()
    saved = Path(await (await saving.value).path()).read_text()
    return [json.loads(line) for line in saved.splitlines()]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "light"), (1280, "dark")])
async def test_a_batch_that_has_ended_is_listed_opened_and_downloaded(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    async with visiting(browser, fake_engines, tmp_path, viewport=size, color_scheme=scheme) as (record, stock):
        await ended(stock, (await create(stock, THREE)).id)
        page = await record.open()
        await page.get_by_role("link", name="Batches", exact=True).click()
        await expect(card(page)).to_contain_text("completed")
        await expect(card(page)).to_contain_text("3 of 3 rows, 1 failed")
        await expect(card(page)).to_contain_text("cappella/default")
        assert await record.accessibility_violations() == []
        assert await page.evaluate(SIDEWAYS) == 0
        await page.get_by_role("link", name="in.jsonl").press("Enter")
        await expect(page.get_by_role("heading", name="in.jsonl")).to_be_focused()
        rows = part(page, "First rows").get_by_role("listitem")
        await expect(rows).to_contain_text(["The final answer", "", "temperature"])
        await expect(rows).to_contain_text(["one", "two", "three"])
        await expect(part(page, "Errors")).to_contain_text("r3: temperature")
        await expect(part(page, "Facts")).to_contain_text("cappella/default")
        assert await record.accessibility_violations() == []
        assert await page.evaluate(SIDEWAYS) == 0
        answers = await downloaded(page, "Download answers")
        assert [each["custom_id"] for each in answers] == ["r1", "r2"]
        assert [each["custom_id"] for each in await downloaded(page, "Download errors")] == ["r3"]


async def test_progress_is_followed_without_a_reload(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold(fake_engines)
    async with visiting(browser, fake_engines, tmp_path) as (record, stock):
        made = await create(stock, [body("one"), body("two")])
        page = await record.open("/#batches")
        await expect(card(page)).to_contain_text("in progress")
        await expect(card(page)).to_contain_text("0 of 2 rows")
        await expect(card(page).get_by_role("listitem").filter(has_text="ann")).to_contain_text("2 running")
        assert await record.accessibility_violations() == []
        fake_engines.release()
        await ended(stock, made.id)
        await expect(card(page)).to_contain_text("completed")
        await expect(page.locator("#announcer")).to_have_text("in.jsonl: completed")


async def test_what_is_not_in_sight_is_not_refreshed(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold(fake_engines)
    async with visiting(browser, fake_engines, tmp_path) as (record, stock):
        await create(stock, [body("one")])
        page = await record.open("/#batches")
        await expect(card(page)).to_contain_text("in progress")
        await page.clock.install()
        await page.get_by_role("button", name="Refresh").click()
        await page.wait_for_load_state("networkidle")

        def reads() -> int:
            return sum("/v1/batches" in each for each in record.requested)

        before = reads()
        async with page.expect_response(lambda reply: "/v1/batches" in reply.url):
            await page.clock.run_for(4000)
        assert reads() > before
        await page.get_by_role("link", name="Machine", exact=True).click()
        await expect(page.get_by_role("heading", name="Machine", level=1)).to_be_visible()
        before = reads()
        async with page.expect_response(lambda reply: "/api/machine" in reply.url):
            await page.clock.run_for(20_000)
        assert reads() == before
        fake_engines.release()


async def test_a_batch_is_cancelled_and_its_files_deleted(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    hold(fake_engines)
    async with visiting(browser, fake_engines, tmp_path) as (record, stock):
        made = await create(stock, [body("one")])
        page = await opened(record, made.id)
        await expect(part(page, "First rows")).to_contain_text("Answers can be read here once the batch has ended.")
        await page.get_by_role("button", name="Cancel", exact=True).click()
        dialog = page.get_by_role("dialog", name="Cancel this batch?")
        await dialog.get_by_role("button", name="Let it go on").click()
        await expect(dialog).to_be_hidden()
        assert (await stock.batches.retrieve(made.id)).status == "in_progress"
        await page.get_by_role("button", name="Cancel", exact=True).click()
        await dialog.get_by_role("button", name="Cancel the batch").click()
        await expect(part(page, "Errors")).to_contain_text("r1: This request was not executed before the batch")
        await page.get_by_role("button", name="Delete its files").click()
        confirmed = page.get_by_role("dialog").get_by_role("button", name="Delete the files")
        await confirmed.click()
        await expect(part(page, "First rows")).to_contain_text("The input file has been deleted.")
        await expect(page.get_by_role("button", name="Download errors")).to_be_hidden()
        assert [each.id async for each in stock.files.list()] == []


async def test_a_file_that_somebody_else_deleted_is_told(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with visiting(browser, fake_engines, tmp_path, refusals={404}) as (record, stock):
        batch = await ended(stock, (await create(stock, [body("one")])).id)
        page = await record.open("/#batches")
        await expect(card(page)).to_contain_text("cappella/default")
        await stock.files.delete(batch.input_file_id)
        await page.get_by_role("link", name="in.jsonl").click()
        await expect(page.get_by_role("heading", name="A file that was deleted")).to_be_visible()
        await expect(part(page, "First rows")).to_contain_text("The input file has been deleted.")
        await expect(page.get_by_role("alert").get_by_text("no such file")).to_be_hidden()


async def test_other_weights_are_accepted(browser: Browser, fake_engines: FakeEngines, tmp_path: Path) -> None:
    hold(fake_engines)
    config = batch_config(tmp_path)
    async with (
        serving(fake_engines, config, lambda: config) as url,
        client(url) as stock,
        open_page(browser, url) as record,
    ):
        made = await create(stock, [body("one")])
        assert await eventually(lambda: asked(fake_engines, "ann") == ["one"])
        write_weights(tmp_path, "other")
        await fake_engines.reloader.reload()
        page = await opened(record, made.id)
        await expect(page.get_by_text("began with other weights")).to_be_visible()
        assert await record.accessibility_violations() == []
        await page.get_by_role("button", name="Go on with the new weights").click()
        await page.get_by_role("dialog").get_by_role("button", name="Go on").click()
        fake_engines.release()
        await expect(part(page, "First rows")).to_contain_text("The final answer")


async def test_a_table_becomes_a_batch(browser: Browser, fake_engines: FakeEngines, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text('id,text\n7,"A long, red note"\n8,Short\n')
    async with visiting(browser, fake_engines, tmp_path, viewport={"width": 360, "height": 800}) as (record, _):
        page = await record.open("/#batches")
        await page.get_by_text("New batch").click()
        await page.get_by_label("File: rows").set_input_files(table)
        await expect(page.get_by_role("status").filter(has_text="2 rows with")).to_have_text(
            "2 rows with the columns id, text."
        )
        asking = page.get_by_label("What is asked of each row")
        await expect(asking).to_have_value("Summarise: {text}")
        await asking.fill("Shorten {txt}")
        await expect(page.get_by_text("There is no column {txt}: the columns are id, text.")).to_be_visible()
        await page.get_by_role("button", name="Create the batch").click()
        await expect(page.get_by_role("status").filter(has_text="notes.csv")).to_contain_text(
            "There is no column {txt}"
        )
        await asking.fill("Shorten: {text}")
        await expect(page.get_by_text("The first row asks: Shorten: A long, red note")).to_be_visible()
        await page.get_by_label("Ensemble or model").select_option("bob")
        assert await record.accessibility_violations() == []
        assert await page.evaluate(SIDEWAYS) == 0
        await page.get_by_role("button", name="Create the batch").press("Enter")
        await expect(page.get_by_role("heading", name="notes.jsonl")).to_be_visible()
        await expect(part(page, "Facts")).to_contain_text("bob")
        await expect(part(page, "First rows")).to_contain_text("Shorten: Short")
        assert await eventually(lambda: len(asked(fake_engines, "bob")) == 2)
        assert sorted(asked(fake_engines, "bob")) == ["Shorten: A long, red note", "Shorten: Short"]
        assert asked(fake_engines, "ann") == []


async def test_rows_are_sent_as_they_are_and_mistakes_in_them_are_told(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    other, rows = tmp_path / "other.jsonl", tmp_path / "rows.jsonl"
    other.write_text('{"prompt": "Hi"}\n')
    rows.write_bytes(lines_of([body("one")])[0] + b"{\n")
    async with visiting(browser, fake_engines, tmp_path, refusals={400}) as (record, stock):
        page = await record.open("/#batches")
        await page.get_by_text("New batch").click()
        field = page.get_by_label("File: rows")
        await field.set_input_files(other)
        told = page.get_by_role("status").filter(has_text=".jsonl")
        await expect(told).to_contain_text("other.jsonl: Its first line is no row of OpenAI's batches")
        await field.set_input_files(rows)
        await expect(page.get_by_text(f"requests to {CHAT}: they are sent as they are.")).to_be_visible()
        await page.get_by_role("button", name="Create the batch").click()
        await expect(part(page, "Mistakes in the file")).to_contain_text("Line 2: The line is not JSON")
        assert await record.accessibility_violations() == []
        await page.get_by_role("link", name="All batches").click()
        await expect(page.get_by_role("heading", name="Batches")).to_be_focused()
        await expect(card(page, "rows.jsonl")).to_contain_text("1 mistake in the file: no row was asked")
        rows.write_bytes(lines_of([body("one")], "/v1/judge")[0])
        await page.get_by_text("New batch").click()
        await field.set_input_files(rows)
        await page.get_by_role("button", name="Create the batch").click()
        await expect(page.get_by_role("alert")).to_contain_text("The server does not accept this request")
        assert len([each async for each in stock.files.list()]) == 1


async def test_of_a_large_file_only_the_beginning_is_read(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with visiting(browser, fake_engines, tmp_path) as (record, stock):
        file = await upload(stock, b"0123456789" * 1_000_000)
        page = await record.open()
        path = f"/v1/files/{file.id}/content"
        assert await page.evaluate(BEGINNING, [path, 25]) == ["0123456789012345678901234", False]
        text, is_all = await page.evaluate(BEGINNING, [path, 20_000_000])
        assert (len(text), is_all) == (10_000_000, True)


async def test_a_key_sees_its_own_batches(browser: Browser, fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    mine, other = keys.create("ann", ["run"]), keys.create("bob", ["run"])
    fake_engines.let("ann", Script(("Yes.",)))
    async with (
        batching(fake_engines, tmp_path, tmp_path / "keys.sqlite") as url,
        client(url, mine) as stock,
        open_page(browser, url, refusals={401}) as record,
    ):
        await ended(stock, (await create(stock, [body("one", model="ann")])).id)
        page = await record.open("/#batches")
        dialog = page.get_by_role("dialog", name="API key")
        for key in (mine, other):
            await dialog.get_by_role("textbox", name="Key").fill(key)
            await dialog.get_by_role("button", name="Use this key").click()
            await expect(page.get_by_role("link", name="Batches", exact=True)).to_be_visible()
            await expect(card(page)).to_have_count(1 if key == mine else 0)
            if key == mine:
                await page.get_by_role("link", name="in.jsonl").click()
                assert len(await downloaded(page, "Download answers")) == 1
                await page.get_by_role("link", name="All batches").click()
                await page.get_by_role("button", name="Key", exact=True).click()
        await expect(page.get_by_text("No batches yet.")).to_be_visible()


async def test_a_server_without_batches_tells_how_to_have_them(browser: Browser, fake_engines: FakeEngines) -> None:
    async with (
        serving(fake_engines, gateway_config()) as url,
        open_page(browser, url, refusals={404}) as record,
    ):
        page = await record.open("/#batches")
        await expect(page.get_by_role("alert")).to_contain_text("set server.batch in its config")
        await expect(page.locator("#engines")).to_be_visible()
        await expect(page.get_by_role("link", name="Batches", exact=True)).to_be_hidden()
        assert await record.accessibility_violations() == []
