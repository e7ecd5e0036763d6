"""The page in a real browser on real engines: the demo, and a small deployment for what does harm."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
import yaml
from playwright.async_api import Browser, Locator, Page, expect

from support.browser import PageVisit, open_page
from support.real_deployment import ROOT, Deployment, deploying, stopped, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim."
LOADED_S = 240
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two engines in three seats, still loading; one may be killed or held up for long."""
    folder = tmp_path_factory.mktemp("small")
    config = yaml.safe_load((ROOT / "model_configs" / "demo.yaml").read_text())
    models = {name: {**config["models"][name], "hung_after_s": 300} for name in ("alto", "tenor")}
    for name, model in models.items():
        model["weights"] = str(ROOT / "model_configs" / "demo" / name)
    panel = [
        {"model": name, "temperature": 0, "max_completion_tokens": MAX_TOKENS} for name in ("alto", "tenor", "tenor")
    ]
    ensemble = {"panel": panel, "judge": "tenor", "strategy": "vote"}
    path = folder / "small.yaml"
    path.write_text(json.dumps({"models": models, "ensembles": {"default": ensemble}}))
    with deploying(path, folder / "logs") as deployment:
        yield deployment


async def at(page: Page, view: str) -> None:
    await page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()
    await expect(page.get_by_role("heading", name=view, level=1)).to_be_attached()


def engine(page: Page, name: str) -> Locator:
    """Its row in the Machine view."""
    return page.get_by_role("table", name="Engines").get_by_role("row").filter(has_text=name)


def state(page: Page, name: str) -> Locator:
    return engine(page, name).locator('[data-label="State"]')


async def answered(record: PageVisit, question: str) -> None:
    done = record.page.get_by_role("article", name=question[:80]).get_by_role("button", name="Copy the answer")
    await expect(done).to_be_visible(timeout=30_000)


async def nobody_waits(deployment: Deployment) -> bool:
    """Whether the gateway has no run under way any more."""

    def inside() -> int:
        return int(deployment.get("/api/machine")["ensembles"]["default"]["in_flight"])

    return await asyncio.to_thread(wait_for, lambda: inside() == 0, 60)


async def quiet(deployment: Deployment, timeout_s: float = 60) -> bool:
    return await asyncio.to_thread(wait_for, lambda: deployment.running() == 0, timeout_s)


async def test_the_page_is_there_before_the_engines_and_asks_once_they_are_up(
    browser: Browser, small: Deployment
) -> None:
    async with open_page(browser, small.url, refusals={503}) as record:
        page = await record.open("/#machine")
        await expect(engine(page, "alto").get_by_role("progressbar")).to_be_visible()
        assert not (await asyncio.to_thread(small.get, "/ready"))["ready"]
        await at(page, "Ask")
        turn = await record.ask(QUESTION)
        await expect(turn).to_contain_text("still loading")
        await expect(turn.get_by_role("progressbar", name="alto")).to_be_visible()
        turn = page.get_by_role("article", name=QUESTION[:80])
        await expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible(timeout=LOADED_S * 1000)
        await at(page, "Machine")
        await expect(state(page, "alto")).to_contain_text("ready", timeout=LOADED_S * 1000)


async def test_stop_in_mid_run_frees_the_engines(browser: Browser, small: Deployment) -> None:
    ended = small.limits_of_ended_calls("alto")
    async with open_page(browser, small.url) as record:
        await record.open()
        with stopped([small.engine_core("alto")]):
            turn = await record.ask(QUESTION)
            await expect(turn).to_contain_text("waiting for alto")
            await record.page.get_by_role("button", name="Stop").click()
            await expect(turn).to_contain_text("You stopped this run.")
            assert await nobody_waits(small)
        assert await quiet(small)
    assert small.limits_of_ended_calls("alto") < ended + MAX_TOKENS


async def test_a_reload_in_mid_stream_frees_the_engines_too(browser: Browser, small: Deployment) -> None:
    ended = small.limits_of_ended_calls("alto")
    async with open_page(browser, small.url) as record:
        await record.open()
        with stopped([small.engine_core("alto")]):
            await expect(await record.ask(QUESTION)).to_contain_text("waiting for alto")
            await record.page.reload()
            assert await nobody_waits(small)
        assert await quiet(small)
        assert small.limits_of_ended_calls("alto") < ended + MAX_TOKENS
        turn = record.page.get_by_role("article", name=QUESTION[:80])
        await turn.get_by_role("combobox", name="Ask again in another way").select_option(label="In the same way")
        await answered(record, QUESTION)


async def test_an_engine_that_is_killed_while_it_answers_is_explained(browser: Browser, small: Deployment) -> None:
    core = small.engine_core("alto")
    async with open_page(browser, small.url, refusals={503}) as record:
        await record.open()
        os.kill(core, signal.SIGSTOP)
        turn = await record.ask(QUESTION)
        await expect(turn).to_contain_text("waiting for alto")
        os.kill(core, signal.SIGKILL)
        await answered(record, QUESTION)
        await expect(turn).to_contain_text("Degraded: alto gave no answer")
        await expect(turn.get_by_role("article", name="alto")).to_contain_text("its engine broke the connection")
        await at(record.page, "Machine")
        await expect(state(record.page, "alto")).to_contain_text("ready", timeout=LOADED_S * 1000)


async def test_an_engine_is_restarted_by_its_button(browser: Browser, small: Deployment) -> None:
    async with open_page(browser, small.url, refusals={503}) as record:
        page = await record.open("/#machine")
        await expect(state(page, "alto")).to_contain_text("ready", timeout=LOADED_S * 1000)
        before = small.engine_core("alto")
        await page.get_by_role("button", name="Restart alto").click()
        await page.get_by_role("dialog").get_by_role("button", name="Restart").click()
        await expect(state(page, "alto")).not_to_contain_text("ready", timeout=30_000)
        await expect(state(page, "alto")).to_contain_text("ready", timeout=LOADED_S * 1000)
        assert small.engine_core("alto") != before


async def test_the_demo_shows_how_it_answers(browser: Browser, demo: Deployment) -> None:
    async with open_page(browser, demo.url) as record:
        page = await record.open()
        await expect(page.get_by_role("textbox", name="Your question")).to_be_focused()
        await page.keyboard.type(QUESTION)
        await page.keyboard.press("Control+Enter")
        await answered(record, QUESTION)
        turn = page.get_by_role("article", name=QUESTION[:80])
        for name in ("soprano", "alto", "tenor"):
            await expect(turn.get_by_role("article", name=name, exact=True)).to_contain_text(re.compile(r"\d+ tokens"))
        for heading in ("The members' answers", "The judge compares", "Where the time went"):
            await expect(turn.get_by_role("heading", name=heading)).to_be_visible()
        await turn.get_by_role("combobox", name="Ask again in another way").select_option(label="With select")
        await answered(record, QUESTION)
        await record.ask("And the room of Gonil?")
        await answered(record, "And the room of Gonil?")
        await expect(page.get_by_role("article", name=QUESTION[:80])).to_contain_text("select")
    assert await quiet(demo)


async def test_two_ways_are_compared_on_the_demo(browser: Browser, demo: Deployment) -> None:
    async with open_page(browser, demo.url) as record:
        page = await record.open("/#compare")
        await page.get_by_role("textbox", name="Question").fill(QUESTION)
        await page.get_by_role("button", name="Compare", exact=True).click()
        sides = page.get_by_role("main").get_by_role("region")
        await expect(sides.filter(has_text="tokens")).to_have_count(2, timeout=30_000)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_view_of_the_demo_has_a_barrier(browser: Browser, demo: Deployment, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    async with open_page(browser, demo.url, viewport=size, color_scheme=scheme) as record:
        page = await record.open("/#machine")
        await expect(engine(page, "conductor")).to_be_visible()
        assert await record.accessibility_violations() == []
        await at(page, "Ask")
        await record.ask(QUESTION)
        await answered(record, QUESTION)
        await record.unfold()
        assert await record.accessibility_violations() == []
