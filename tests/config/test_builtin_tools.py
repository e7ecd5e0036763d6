"""Tools in the box, in a config: what each takes, and what an error says."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cappella.config import BuiltinTool, load
from cappella.errors import ConfigError
from cappella.tools.base import Tool
from cappella.tools.builtin import open_builtin

CONFIG = """models:
  ann: {{weights: w, max_model_len: 100}}
tools:
  mine: {tool}
ensembles:
  default:
    panel: [ann]
    judge: ann
"""


def loaded(folder: Path, tool: str) -> BuiltinTool:
    (folder / "c.yaml").write_text(CONFIG.format(tool=tool))
    found = load.load(folder / "c.yaml").tools["mine"]
    assert isinstance(found, BuiltinTool)
    return found


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        ("{builtin: calculator}", {"calculate"}),
        ("{builtin: clock}", {"now", "about_date", "add_to_date", "time_between", "convert_time"}),
        (
            "{builtin: clock, time_zone: Europe/Berlin}",
            {"now", "about_date", "add_to_date", "time_between", "convert_time"},
        ),
        ("{builtin: clock, time_zone: UTC}", {"now", "about_date", "add_to_date", "time_between", "convert_time"}),
        ("{builtin: python}", {"run_python"}),
    ],
)
async def test_each_kind_has_its_tools_once_it_is_ready(tool: str, names: set[str], tmp_path: Path) -> None:
    server = open_builtin("mine", loaded(tmp_path, tool))
    assert server.problem == "it is starting"
    assert server.tools == ()
    await server.start()
    await server.started()
    if server.problem and "namespaces" in server.problem:
        pytest.skip(server.problem)
    tools: Sequence[Tool] = server.tools
    assert {each.name for each in tools} == names
    assert {each.server for each in tools} == {"mine"}
    assert all(each.description and len(each.description) < 800 for each in tools)
    await server.stop()


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("{builtin: calculator, files: [a.db]}", "reads no files"),
        ("{builtin: python, time_zone: UTC}", "has no time zone"),
        ("{builtin: sql}", "files"),
        ("{builtin: sql, files: [a.db, x/a.duckdb]}", "two files are called a"),
        ("{builtin: clock, time_zone: Europe/Atlantis}", "Europe/Berlin"),
        ("{builtin: clock, time_zone: ../etc/passwd}", "Europe/Berlin"),
        ("{builtin: abacus}", "calculator"),
        ("{builtin: calculator, digits: 3}", "digits"),
    ],
)
def test_a_mistake_is_told_with_its_place(tool: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, tool)
    assert words in str(told.value)
    assert told.value.place.startswith(f"{tmp_path}/c.yaml:4")
    assert "mine" in told.value.place


async def test_sql_reads_the_files_that_are_named(tmp_path: Path) -> None:
    config = loaded(tmp_path, "{builtin: sql, files: [a.db, b.duckdb]}")
    server = open_builtin("mine", config)
    assert server.problem is not None
    assert "there is no file" in server.problem
    await server.stop()
