"""Text that grows on the page, in a real browser: at its end it looks as if it had come at once."""

import asyncio

import pytest
from playwright.async_api import expect

from support.browser import PageVisit
from support.fake_engines import FakeEngines, judge_script
from support.long_answers import CODE, FORMULA, TABLE
from support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = f"""# A title with $a^2$

A price of $5, a formula $x_1 + y$ and \\(z\\), **bold $b$** and a note[^1] and another[^two] in one line of text.

- [x] done with $c$
- [ ] to do[^1]

{FORMULA}

> quoted[^two] text with $q$ in it

{TABLE}

{CODE.format(language="python", name="judge")}

3. three
4. four

[^1]: The first note goes on and on,
with $n$ in its second line.
[^two]: The second note has [a link](https://example.org/) too."""
GROW = """async ([text, step]) => {
  const { showMarkdown } = await import("/assets/markdown_view.js");
  const [grown, whole] = [0, 1].map(() => document.querySelector("main").appendChild(document.createElement("div")));
  for (let end = step; end < text.length + step; end += step) {
    showMarkdown(grown, text.slice(0, end));
    if (end % 7 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  showMarkdown(whole, text);
  const isReady = (element) => !element.querySelector(".math:not(:has(.katex))") && element.querySelector(".hl-keyword");
  for (let tries = 0; tries < 500 && ![grown, whole].every(isReady); tries += 1) await new Promise((resolve) => setTimeout(resolve, 20));
  const markup = (element) => element.cloneNode(true).innerHTML.replaceAll(/note-\\d+/g, "note");
  const found = [markup(grown), markup(whole)];
  grown.remove();
  whole.remove();
  return found;
}"""


@pytest.mark.parametrize("step", [1, 5, 40])
async def test_text_that_grew_is_shown_as_if_it_had_come_at_once(record: PageVisit, step: int) -> None:
    grown, whole = await record.page.evaluate(GROW, [TEXT, step])
    assert grown == whole
    assert whole.count('class="check"') == 2
    assert whole.count('class="footnote"') == 2


async def test_a_footnote_that_is_streamed_does_not_keep_a_run_from_ending(
    record: PageVisit, fake_engines: FakeEngines
) -> None:
    pace = asyncio.Semaphore(0)
    pieces = ("Text[^1].\n\n[^1]: The", " note", " that", " grows.")
    fake_engines.let("judge", judge_script(final=Script(pieces, pace=pace)))
    turn = await record.ask("Say hello.")
    shown = turn.locator(".answer")
    for piece in pieces:
        pace.release()
        await expect(shown).to_contain_text(piece.strip().split()[-1])
    await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    await expect(shown.locator(".footnote")).to_have_text("1The note that grows.")
