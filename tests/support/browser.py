"""The web page in a real browser, Debian's chromium driven by Playwright; records every error that it reports."""

import os
import re
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright, expect

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
# What is waited for comes in less than a second, but not on a machine that does much else.
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
VIOLATIONS = "axe.run({ resultTypes: ['violations'] }).then((found) => found.violations)"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
STATUS = re.compile(r"the server responded with a status of (\d+)")


def executable() -> Path:
    """The path of a chromium. Without one the test is skipped, or fails if CAPPELLA_BROWSER is set."""
    # The shell has the same engine without the windows and services of a whole browser: a page costs less than half.
    for name in ("chromium-headless-shell", "chromium"):
        if found := shutil.which(name):
            return Path(found)
    reason = "there is no chromium here: `scripts/setup test` installs it, or says what keeps it from that"
    if os.environ.get("CAPPELLA_BROWSER") == "needed":
        pytest.fail(reason)
    pytest.skip(reason)


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A new browser with an empty profile."""
    path = executable()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class PageVisit:
    """One tab on one server, with the problems seen in it; `refusals` are error statuses that the test provokes."""

    url: str
    context: BrowserContext
    refusals: Collection[int]
    page: Page = field(init=False)
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        self.context.on("request", lambda request: self._requests(request.url))
        self.context.on("console", self._says)
        self.context.on("weberror", lambda event: self.troubles.append(f"uncaught: {event.error}"))
        self.context.on("dialog", lambda event: self.troubles.append(f"dialog: {event.message}"))
        await self.context.add_init_script(TELL_VIOLATIONS)
        self.page = await self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)

    async def open(self, path: str = "/") -> Page:
        await self.page.goto(self.url + path)
        return self.page

    async def ask(self, question: str) -> Locator:
        """Type and send a question; returns the element of its turn."""
        box = self.page.get_by_role("textbox", name="Your question")
        await box.fill(question)
        await box.press("Control+Enter")
        return self.page.get_by_role("article", name=question[:80]).last

    async def unfold(self) -> None:
        """Open everything in the view that can be opened."""
        await self.page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")

    async def broken_words(self, selector: str) -> list[str]:
        """Words in these elements that wrap inside the word or are clipped by their cell."""
        broken: list[str] = await self.page.evaluate(BROKEN_WORDS, selector)
        return broken

    async def accessibility_violations(self) -> list[str]:
        """Accessibility violations of the current view, as reported by axe."""
        # axe stays in a document until that is left; what it has passed is long, and nobody reads it.
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(Axe().axe_script)
        found = await self.page.evaluate(VIOLATIONS)
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]

    async def violations_light_and_dark(self) -> list[str]:
        """Accessibility violations of the current view in each colour scheme."""
        found: list[str] = []
        for scheme in SCHEMES:
            await self.page.emulate_media(color_scheme=scheme)
            found += [f"{scheme}: {each}" for each in await self.accessibility_violations()]
        return found

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
async def open_page(
    browser: Browser, url: str, refusals: Collection[int] = (), **context: Any
) -> AsyncIterator[PageVisit]:
    """A tab that must stay without problems: browser errors, requests to other hosts, cookies."""
    opened = await browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
    )
    try:
        record = PageVisit(url, opened, refusals)
        await record.begin()
        yield record
        assert record.requested
        assert not record.troubles, record.troubles
        assert not await opened.cookies(), "a cookie"
    finally:
        await opened.close()
