"""The documentation is served, readable without a network, a key or a script, and all of its links lead somewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest

from cappella.docs import page
from cappella.docs.topics import NAMES, Topic, topics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "runtime" / "cappella" / "docs"


class Elements(HTMLParser):
    """The links, the ids, and all that a browser would load, of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.ids |= {found["id"]} if "id" in found else set()
        self.links |= {found["href"]} if tag == "a" else set()
        self.loaded |= {found[name] for name in ("src", "href") if name in found and tag != "a"}


async def test_each_page_is_served_without_a_key_and_loads_only_our_own_files(gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/docs", *(f"/docs/{name}" for name in NAMES)):
            async with http.get(f"{gateway}{path}") as reply:
                assert (reply.status, reply.content_type) == (200, "text/html")
                assert "script-src 'self'" in reply.headers["Content-Security-Policy"]
                elements = Elements(await reply.text())
            assert "script" not in elements.tags
            for file in elements.loaded:
                async with http.get(f"{gateway}{file}") as reply:
                    assert reply.status == 200, file


def test_every_link_between_pages_leads_to_a_page_and_a_heading() -> None:
    known = topics()
    pages = {f"/docs/{topic.name}": Elements(page.html(topic, known)) for topic in known}
    broken = [
        f"{path} -> {link}"
        for path, elements in pages.items()
        for link in elements.links - {"/", "#main"}
        if link.partition("#")[0] not in pages
        or (link.partition("#")[2] not in {"", *pages[link.partition("#")[0]].ids})
    ]
    assert not broken


@pytest.mark.parametrize("text", ["<script>x</script>", "<img src=x onerror=y>", "[a](javascript:alert(1))"])
def test_html_in_a_page_is_shown_and_not_run(text: str) -> None:
    topic = Topic("start", "A", f"# A\n\n{text}\n")
    elements = Elements(page.html(topic, [topic]))
    assert not {"script"} & elements.tags
    assert not any(link.startswith("javascript") for link in elements.links)
    assert not any(file == "x" for file in elements.loaded)


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_has_its_file_and_each_file_its_page() -> None:
    assert sorted(NAMES) == sorted(file.stem for file in DOCS.glob("*.md"))


def test_the_threat_model_is_on_one_page_and_names_tests_that_exist() -> None:
    text = (DOCS / "threat-model.md").read_text()
    named = set(re.findall(r"`((?:tests|scripts)/[\w./*]+|test_[\w*]+\.py)`", text))
    found = {name for name in named if any(ROOT.glob(name if "/" in name else f"tests/**/{name}"))}
    assert named - found == set()
    security = (ROOT / ".github" / "SECURITY.md").read_text()
    assert "cappella docs threat-model" in security
    assert "|" not in security
