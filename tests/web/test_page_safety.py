"""What a model writes, and what a server with keys asks for, in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from cappella.auth.keys import KeyStore
from support.browser import PageVisit, open_page
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, judge_script, last_message, serving
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

NASTY = """
<img src=x onerror="window.pwned = 1"> <script>window.pwned = 2</script> <svg onload="window.pwned = 3"></svg>
[a link](javascript:window.pwned=4) [another](JaVaScRiPt&colon;window.pwned=5) <javascript:window.pwned=6>
[data](data:text/html,<script>window.pwned=7</script>) ![picture](https://elsewhere.invalid/x.png)
<a href="javascript:window.pwned=8">raw</a> <iframe src="https://elsewhere.invalid/"></iframe>
<style>@import "https://elsewhere.invalid/x.css";</style> <form action="https://elsewhere.invalid/"><input></form>

```html "><img src=x onerror=window.pwned=9>
<script>window.pwned = 10</script>
```

[reference]: javascript:window.pwned=11
[reference] <base href="https://elsewhere.invalid/"> <meta http-equiv="refresh" content="0;url=https://elsewhere.invalid/">
"""

FAR = r"$\kern-4em\text{FAR}$ is a formula."
# Where the marked text would be painted, and what is there instead.
SEEN = """(text) => { const range = document.createRange(); range.selectNodeContents(text);
  text.scrollIntoView({ block: "center" });
  const { left, top, height } = range.getBoundingClientRect();
  const place = text.closest(".prose, .comparison").getBoundingClientRect();
  const there = document.elementFromPoint(left + 3, top + height / 2);
  return [left < place.left - 24, there !== null && text.contains(there)]; }"""


async def test_a_formula_is_not_seen_outside_its_text(record: PageVisit, fake_engines: FakeEngines) -> None:
    analysis = {"contradictions": [{"topic": FAR, "stances": []}]}
    fake_engines.let("judge", judge_script(final=Script((FAR,)), analysis=Script((json.dumps(analysis),))))
    turn = await record.ask("Say hello.")
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    for place in (".answer", ".comparison"):
        far = turn.locator(f"{place} .katex-html .text").first
        await expect(far).to_have_text("FAR")
        assert await far.evaluate(SEEN) == [True, False]


async def test_a_formula_of_many_characters_is_shown_as_its_source(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    lines = "\n".join(["x_1 + y^2 + z" * 30] * 12)
    fake_engines.let("judge", judge_script(final=Script((f"$$\n{lines}\n$$\n\nand $a$",))))
    turn = await record.ask("Say hello.")
    await expect(turn.locator(".answer .katex")).to_have_count(1)
    await expect(turn.locator(".answer .displayed > code")).to_have_text(lines)


async def test_what_models_write_is_never_run(record: PageVisit, fake_engines: FakeEngines) -> None:
    nasty: dict[str, Any] = {
        "consensus": [NASTY],
        "contradictions": [{"topic": NASTY, "stances": [{"model": "A", "stance": NASTY}]}],
        "partial_coverage": [{"models": ["A"], "point": NASTY}],
        "unique_insights": [{"model": "B", "insight": NASTY}],
        "blind_spots": [NASTY],
    }
    for name in MEMBERS:
        fake_engines.let(name, Script((NASTY,), reasoning=NASTY))
    fake_engines.let(
        "judge",
        lambda body: Script((json.dumps(nasty),) if "Now compare" in last_message(body) else (NASTY, "The end")),
    )
    page = record.page
    await record.ask(NASTY)
    turn = page.get_by_role("article").first
    await expect(page.get_by_role("group", name="Answer")).to_contain_text("The end")
    await record.unfold()
    for link in await turn.get_by_role("link").all():
        target = await link.get_attribute("href") or ""
        assert target.startswith(("http://", "https://", "#")), target
    assert await page.evaluate("window.pwned") is None
    strange = "main :is(script, img, svg[onload], iframe, style, form[action], base, meta, object, embed, link)"
    assert await page.locator(strange).count() == 0
    assert "window.pwned = 10" in await turn.inner_text()


async def offered(page: Page, key: str) -> None:
    """Give a key in the dialog that asks for one."""
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_role("textbox", name="Key").fill(key)
    await dialog.get_by_role("button", name="Use this key").click()


async def test_a_key_is_refused_then_accepted_and_kept_in_the_tab_alone(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    config, keys = gateway_config(), tmp_path / "keys.sqlite"
    key = KeyStore(keys).create("ann", ["run"])
    server = config.server.model_validate({**config.server.model_dump(), "keys": keys})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url, refusals={401}) as record,
    ):
        page = await record.open()
        await offered(page, "ck_wrong")
        await expect(page.get_by_role("dialog")).to_contain_text("does not know that key")
        await offered(page, key)
        turn = await record.ask("Say hello.")
        await expect(turn.get_by_role("group", name="Answer")).to_contain_text("The final answer")
        await page.reload()
        turn = await record.ask("And now?")
        await expect(turn.get_by_role("group", name="Answer")).to_contain_text("The final answer")
        assert key not in await page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        assert not any(key in each for each in record.requested)
        other = await record.context.new_page()
        await other.goto(url)
        await expect(other.get_by_role("dialog", name="API key")).to_be_visible()


async def test_a_key_that_is_revoked_is_asked_for_anew(
    browser: Browser, fake_engines: FakeEngines, tmp_path: Path
) -> None:
    config, keys = gateway_config(), tmp_path / "keys.sqlite"
    store = KeyStore(keys)
    first, second = store.create("ann", ["run"]), store.create("bob", ["run"])
    server = config.server.model_validate({**config.server.model_dump(), "keys": keys})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        open_page(browser, url, refusals={401}) as record,
    ):
        page = await record.open()
        await offered(page, first)
        await expect((await record.ask("Say hello.")).get_by_role("group", name="Answer")).to_contain_text("final")
        store.revoke(first.split("_")[1])
        await record.ask("Still there?")
        await offered(page, second)
        turn = page.get_by_role("article", name="Still there?")
        await expect(turn.get_by_role("group", name="Answer")).to_contain_text("The final answer")
