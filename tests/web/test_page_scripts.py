"""The page's own programs: their logic by node's test runner, and what none of them may do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cappella.gateway import page_script

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


MODULES = {
    "main.js": """\
import { SIZE, grow as growBy } from "./size.js";
import * as words from "./words.js";

async function main() {
  console.log(words.joined(["a", "b"]), SIZE, growBy(2), new words.Word("c").text);
  console.log(typeof (await words.later()).once, (await import("./late.js")).once, SIZE);
}

main();
""",
    "size.js": "export const SIZE = 3;\n\nexport function grow(by) {\n  return SIZE + by;\n}\n",
    "words.js": """\
import {
  SIZE,
} from "./size.js";

const own = "-".repeat(SIZE);
export function joined(words) {
  return words.join(own);
}
export class Word {
  constructor(text) {
    this.text = text;
  }
}
export async function later() {
  return import("./late.js");
}
""",
    "late.js": 'console.log("late");\nexport const once = 1;\n',
}


def written(folder: Path, **modules: str) -> Path:
    for name, text in {**MODULES, **{f"{name}.js": text for name, text in modules.items()}}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_one_script_does_what_its_modules_do(tmp_path: Path) -> None:
    (written(tmp_path) / "package.json").write_text('{"type": "module"}')
    joined = tmp_path / "joined" / "page.mjs"
    joined.parent.mkdir()
    joined.write_bytes(page_script.joined(tmp_path))
    outputs = [
        subprocess.run(["node", path], capture_output=True, text=True, timeout=120, check=True).stdout
        for path in (tmp_path / "main.js", joined)
    ]
    assert outputs[0] == outputs[1] == "a---b 3 5 c\nlate\nnumber 1 3\n"


@pytest.mark.parametrize(
    "late",
    [
        "export default 1;",
        "const once = 1;\nexport { once };",
        'import "./size.js";',
        'import { Word } from "./words.js";\nimport { SIZE } from "./main.js";',
    ],
)
def test_a_module_that_the_one_script_would_change_is_refused(tmp_path: Path, late: str) -> None:
    text = 'import { once } from "./late.js";\n' + MODULES["size.js"]
    with pytest.raises(ValueError, match=r"late\.js"):
        page_script.joined(written(tmp_path, late=late, size=text))


def test_all_modules_of_the_page_are_in_its_script() -> None:
    script = page_script.joined(WEB / "assets").decode()
    names = [path.name for path in (WEB / "assets").glob("*.js")]
    assert sorted(re.findall(r'^"([\w.]+)": \(\) => \{$', script, re.MULTILINE)) == sorted(names)
    used = {
        found for pair in re.findall(r'\$use\("([^"]+)"\)|import\("(\./[^"]+)"\)', script) for found in pair if found
    }
    assert used <= set(names)


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
    assert re.findall(r'<script[^>]* src="([^"]+)"', index) == ["/page.js"]
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', index)
    assert named
    assert not [name for name in named if not (WEB / name[1:]).exists() and name != "/assets/machine.css"]


def test_every_file_of_the_page_fits_a_glance() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count >= 300}
