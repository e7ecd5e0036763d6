"""What the READMEs show is what the program takes."""

import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cappella.config import Config
from cappella.config.limits import Limits
from cappella.config.options import EnsembleOptions, Options
from cappella.config.weighing import MAX_SAMPLES, Adaptive, Agreement, Selection
from cappella.gateway import errors
from cappella.gateway.formats.chat import ChatRequest, StreamOptions
from cappella.gateway.formats.fields import OPTIONS, Fusion
from cappella.telemetry.trace_types import Trace

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "runtime" / "cappella" / "docs"
REFERENCE, CONFIG = DOCS / "api.md", DOCS / "config.md"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
LEAST = {
    "models": {"ann": {"weights": "/ann", "max_model_len": 64}},
    "ensembles": {"x": {"panel": ["ann"], "judge": "ann"}},
}
BLOCKS = [(page, block) for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda value: getattr(value, "name", "block"))
def test_a_config_that_is_shown_is_one(page: Path, block: str) -> None:
    shown = yaml.safe_load(block)
    if "scrape_configs" not in shown:  # Prometheus' own
        Config.model_validate(LEAST | shown)


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len(PAGES[0].read_text().split()) <= 1200


def first_column(text: str, head: str) -> set[str]:
    """The names in the first column of the table that begins with `head`."""
    rows = text.split(head, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


def test_the_reference_has_a_row_for_every_field_and_for_no_other() -> None:
    text = REFERENCE.read_text()
    request = (set(ChatRequest.model_fields) - {"model"}) | set(StreamOptions.model_fields)
    assert first_column(text, "| field | meaning |") == request
    assert first_column(text, "| in `fusion` | meaning |") == set(Fusion.model_fields)


def test_the_reference_names_every_part_of_a_trace_and_every_error() -> None:
    text = REFERENCE.read_text()
    codes = {code for each in errors.codes().values() for code in each} - {"internal_error"}
    assert sorted(name for name in set(Trace.__annotations__) | codes if f"`{name}`" not in text) == []


def option_rows() -> Iterator[str]:
    """The table of run options as their declarations say it."""
    yield from ("| in an ensemble or preset | in a request | value | default |", "|---|---|---|---|")
    for name, option in Options.model_fields.items():
        in_config = f"`{name}`" if name in EnsembleOptions.model_fields else ELSEWHERE[name]
        yield f"| {in_config} | `{OPTIONS[name]}` | {_values(option)} | {_default(option.default)} |"


ELSEWHERE = {"gate": "`gate` (with its model; a preset: the mode)", "criteria": "`judge.criteria`"}


OBJECTS = (Agreement, Selection, Mapping)


def _values(option: FieldInfo) -> str:
    kinds = [kind for kind in get_args(option.annotation) or (option.annotation,) if kind is not type(None)]
    if isinstance(kinds[0], str):
        return ", ".join(f"`{word}`" for word in kinds)
    if kinds[0] in OBJECTS or get_origin(kinds[0]) in OBJECTS:
        return "an object"
    if Adaptive in kinds:
        return f"1 to {MAX_SAMPLES}, an object"
    limits = {type(limit): limit for limit in option.metadata}
    if Ge in limits and Le in limits:
        return f"{limits[Ge].ge} to {limits[Le].le}"
    known = {bool: "`true`, `false`", int: "a number", float: "seconds", str: "a text"}
    kind = next(words for kind, words in known.items() if _mentions(option.annotation, kind))
    return ", ".join([kind, *(f"`{word}`" for each in kinds if get_origin(each) is Literal for word in get_args(each))])


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{str(value).lower()}`"


def _mentions(annotation: object, kind: type) -> bool:
    return annotation is kind or any(_mentions(each, kind) for each in get_args(annotation))


def test_the_table_of_run_options_says_what_their_declarations_say() -> None:
    table = "\n".join(option_rows())
    assert table in CONFIG.read_text(), f"docs/config.md should have:\n{table}"


def test_the_table_of_limits_says_what_their_declarations_say() -> None:
    rows = (
        f"| `{name}` | {limit.default} | {' '.join((limit.description or '').split())} |"
        for name, limit in Limits.model_fields.items()
    )
    table = "\n".join(["| in `server.limits` | default | of one request |", "|---|---|---|", *rows])
    assert table in CONFIG.read_text(), f"docs/config.md should have:\n{table}"


def test_the_map_of_the_package_says_what_its_modules_say() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "write_map"))["page"]()
    assert (ROOT / "runtime" / "README.md").read_text() == written, "run .venv/bin/python scripts/write_map"
