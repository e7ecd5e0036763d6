"""The page's own programs: their logic by node's test runner, and what none of them may do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
WEB = FOLDER.parents[1] / "runtime" / "cappella" / "web"
FILES = sorted(path for path in WEB.rglob("*") if path.suffix in (".html", ".js", ".css", ".svg"))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_the_logic_of_the_page(script: Path) -> None:
    done = subprocess.run(["node", "--test", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"# pass [1-9]", done.stdout), done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_makes_code_or_markup_from_text(path: Path) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|javascript:"
    )
    assert not re.findall(forbidden, path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_leads_elsewhere(path: Path) -> None:
    addresses = re.findall(r"https?://[\w.]+", path.read_text())
    assert set(addresses) <= {"http://www.w3.org"}  # the name of SVG, which nothing fetches


def test_the_page_keeps_its_own_policy() -> None:
    index = (WEB / "index.html").read_text()
    assert not re.findall(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", index)
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', index)
    assert named
    assert not [name for name in named if not (WEB / name[1:]).exists() and name != "/assets/machine.css"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_page_fits_a_glance(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 300
