"""The page in a real browser: Debian's chromium, driven by Playwright, that reports all it complains of."""

import os
import re
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
# A server of a local network, as browsers see one: plain HTTP at an address that is not this machine's.
LAN_ADDRESS = "192.0.2.10"
FLAGS.append(f"--host-resolver-rules=MAP {LAN_ADDRESS} 127.0.0.1")
TELL_VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective}`))"
)
BROKEN_WORDS = """(selector) => [...document.querySelectorAll(selector)].flatMap((element) => {
  const range = document.createRange();
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const broken = [];
  while (walker.nextNode()) {
    for (const word of walker.currentNode.data.matchAll(/[\\p{L}\\p{N}_]+/gu)) {
      range.setStart(walker.currentNode, word.index);
      range.setEnd(walker.currentNode, word.index + word[0].length);
      const boxes = [...range.getClientRects()];
      const cell = element.getBoundingClientRect();
      if (boxes.length > 1 || boxes.some((box) => box.right > cell.right + 1)) broken.push(word[0]);
    }
  }
  return broken;
})"""
STATUS = re.compile(r"the server responded with a status of (\d+)")


def executable() -> Path:
    """Where chromium is. Without one a test is skipped, or fails where CAPPELLA_BROWSER says that it is needed."""
    if found := shutil.which("chromium"):
        return Path(found)
    reason = "there is no chromium here: `scripts/setup test` installs it, or says what keeps it from that"
    if os.environ.get("CAPPELLA_BROWSER") == "needed":
        pytest.fail(reason)
    pytest.skip(reason)


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser with nothing in it, in a folder of its own."""
    path = executable()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class RequestRecord:
    """One tab at one server, with all that goes wrong in it; `refusals` are statuses that the test provokes."""

    url: str
    context: BrowserContext
    refusals: Collection[int]
    page: Page = field(init=False)
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        self.context.on("request", lambda request: self._requests(request.url))
        self.context.on("console", self._says)
        self.context.on("weberror", lambda told: self.troubles.append(f"uncaught: {told.error}"))
        self.context.on("dialog", lambda told: self.troubles.append(f"dialog: {told.message}"))
        await self.context.add_init_script(TELL_VIOLATIONS)
        self.page = await self.context.new_page()
        self.page.set_default_timeout(10_000)

    async def open(self, path: str = "/") -> Page:
        await self.page.goto(self.url + path)
        return self.page

    async def ask(self, question: str) -> Locator:
        """Write it, send it with the keyboard; returns the turn that begins with it."""
        box = self.page.get_by_role("textbox", name="Your question")
        await box.fill(question)
        await box.press("Control+Enter")
        return self.page.get_by_role("article", name=question[:80]).last

    async def unfold(self) -> None:
        """Show all that can be opened in the view."""
        await self.page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")

    async def broken_words(self, selector: str) -> list[str]:
        """The words of these elements that go on in another line, or into what their cell does not show."""
        broken: list[str] = await self.page.evaluate(BROKEN_WORDS, selector)
        return broken

    async def barriers(self) -> list[str]:
        """What keeps people out of the view that is shown, as axe sees it."""
        found = (await Axe().run(self.page)).response["violations"]
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]

    def _requests(self, url: str) -> None:
        self.requested.append(url)
        ours, theirs = urlsplit(self.url), urlsplit(url)
        if theirs.scheme != "data" and (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            self.troubles.append(f"a request to {url}")

    def _says(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        status = STATUS.search(message.text)
        if status is None or int(status[1]) not in self.refusals:
            self.troubles.append(f"{message.type}: {message.text}")


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, refusals: Collection[int] = (), **context: Any
) -> AsyncIterator[RequestRecord]:
    """A visit that must end with nothing wrong: no complaint of the browser, no request to elsewhere, no cookie."""
    opened = await browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
    )
    try:
        record = RequestRecord(url, opened, refusals)
        await record.begin()
        yield record
        assert record.requested
        assert not record.troubles, record.troubles
        assert not await opened.cookies(), "a cookie"
    finally:
        await opened.close()
