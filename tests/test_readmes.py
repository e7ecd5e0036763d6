"""What the READMEs show is what the program takes."""

import re
from pathlib import Path

import pytest
import yaml

from cappella.config import Config
from cappella.gateway.errors import HTTP_TABLE
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.fields import Fusion

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "model_configs" / "README.md")
BLOCKS = [(page, block) for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda value: getattr(value, "parent", Path("block")).name)
def test_a_config_that_is_shown_is_one(page: Path, block: str) -> None:
    Config.model_validate(yaml.safe_load(block))


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= 250


def test_the_reference_names_every_field_and_every_error() -> None:
    text = (ROOT / "runtime" / "cappella" / "api" / "README.md").read_text()
    fields = set(ChatRequest.model_fields) | set(Fusion.model_fields)
    codes = {code for _, _, code in HTTP_TABLE.values() if code} - {"internal_error"}
    assert sorted(name for name in fields | codes if f"`{name}`" not in text) == []
