"""The page's own programs: their logic by node's test runner, and what none of them may do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
WEB = FOLDER.parents[1] / "runtime" / "cappella" / "gateway" / "web"
VENDOR = WEB / "assets" / "vendor"
FILES = sorted(
    path for path in WEB.rglob("*") if path.suffix in (".html", ".js", ".css", ".svg") and VENDOR not in path.parents
)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_the_logic_of_the_page(script: Path) -> None:
    done = subprocess.run(["node", "--test", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"# pass [1-9]", done.stdout), done.stdout


def test_no_file_of_the_page_makes_code_or_markup_from_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|javascript:"
    )
    offenders = {path.name: found for path in FILES if (found := re.findall(forbidden, path.read_text()))}
    assert not offenders


def test_no_file_of_the_page_leads_elsewhere() -> None:
    svg = "http://www.w3.org"  # a name, which nothing fetches
    addresses = {path.name: set(re.findall(r"https?://[\w.]+", path.read_text())) - {svg} for path in FILES}
    assert not {name: found for name, found in addresses.items() if found}


def test_the_page_keeps_its_own_policy() -> None:
    index = (WEB / "index.html").read_text()
    assert not re.findall(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", index)
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', index)
    assert named
    assert not [name for name in named if not (WEB / name[1:]).exists() and name != "/assets/machine.css"]


def test_every_file_of_the_page_fits_a_glance() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count >= 300}
