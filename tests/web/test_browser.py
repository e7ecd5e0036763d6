"""What the tests of the page lean on: a visit notices whatever goes wrong in it."""

import pytest
from playwright.async_api import Browser

from support.browser import executable, open_page
from support.fake_engines import FakeEngines, eventually, gateway_config, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("console.warn('hm')", "warning: hm"),
        ("setTimeout(() => { throw new Error('oh') })", "oh"),
        ("setTimeout(() => alert('here'))", "dialog: here"),
        ("fetch('/nowhere')", "status of 404"),
        ("fetch('https://elsewhere.invalid/').catch(() => {})", "CSP: connect-src"),
        ("document.body.setAttribute('style', 'color: red')", "CSP: style-src-attr"),
        ("window.open('http://localhost:1/', '_self')", "a request to http://localhost:1/"),
    ],
)
async def test_a_visit_notices(browser: Browser, fake_engines: FakeEngines, script: str, told: str) -> None:
    async def visit_and_run() -> None:
        async with serving(fake_engines, gateway_config()) as url, open_page(browser, url) as record:
            await (await record.open()).wait_for_load_state("networkidle")
            assert record.troubles == []
            await record.page.evaluate(f"() => {{ {script} }}")
            await eventually(lambda: any(told in each for each in record.troubles))

    with pytest.raises(AssertionError, match=told):
        await visit_and_run()


async def test_a_visit_notices_a_cookie(browser: Browser, fake_engines: FakeEngines) -> None:
    async def visit_and_keep() -> None:
        async with serving(fake_engines, gateway_config()) as url, open_page(browser, url) as record:
            # The browser keeps it a moment later; reading it waits for that.
            assert await (await record.open()).evaluate("(document.cookie = 'a=b', document.cookie)") == "a=b"

    with pytest.raises(AssertionError, match="a cookie"):
        await visit_and_keep()


async def test_without_a_browser_tests_are_skipped_unless_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CAPPELLA_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="scripts/setup test"):
        executable()
    monkeypatch.setenv("CAPPELLA_BROWSER", "needed")
    with pytest.raises(pytest.fail.Exception, match="scripts/setup test"):
        executable()
