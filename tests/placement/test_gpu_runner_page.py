"""docs/gpu-runner.md names places of vLLM: each is there, and each test that checks it exists."""

import importlib.util
import re
from pathlib import Path

import pytest

from support.real_deployment import ROOT

PAGE = ROOT / "runtime" / "cappella" / "docs" / "gpu-runner.md"
PLACES = re.findall(r"`([\w/]+\.py):(\d+)` \(`([^`]+)`\)", PAGE.read_text())


def test_every_test_that_is_named_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests" / "gpu").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE.read_text())
    assert len(named) > 5
    assert all(f"def {name}(" in text for name in named)


@pytest.mark.vllm
@pytest.mark.parametrize(("file", "line", "word"), PLACES)
def test_real_vllm_has_what_the_page_names(file: str, line: str, word: str) -> None:
    found = importlib.util.find_spec("vllm")
    assert found
    assert found.origin
    lines = (Path(found.origin).parent / file).read_text().splitlines()
    assert word in lines[int(line) - 1]
