"""What contributors rely on: the guide, the changelog, and hooks that run what CI runs."""

import asyncio
import gc
import re
import socket
from pathlib import Path

import pytest
import yaml

from support.scripted_engine import Script, ScriptedEngine

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
PACKAGE = ROOT / "runtime" / "cappella"


def test_there_is_a_guide_for_everything_that_is_often_added() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text()
    for kind in ("A strategy", "A backend", "A command", "A figure", "A config key", "A run option"):
        section = text.partition(f"**{kind}**")[2].partition("\n\n")[0]
        assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == ["1", "2", "3"], kind


@pytest.mark.skipif(not (PACKAGE / "gateway").exists(), reason="the guide describes the layout with gateway/")
def test_the_guide_names_files_that_exist() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text()
    named = {name for name in re.findall(r"`([\w./]+/[\w./]*)`", text) if "NAME" not in name}
    missing = [name for name in sorted(named) if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    assert not missing, missing


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    first = re.search(r"^## (.+)$", (GITHUB / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == "Unreleased"


def test_the_hooks_run_what_the_check_runs_and_fetch_nothing() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    commands = (ROOT / "scripts" / "check").read_text().partition("set -x\n")[2].splitlines()
    assert [hook["entry"] for hook in hooks] == [f".venv/bin/{command}" for command in commands]
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}


def test_slow_imports_stand_in_the_functions_that_use_them() -> None:
    """Every process that runs tests imports every module of them: `anthropic` and `mcp` take seconds of CPU time."""
    slow = re.compile(r"^(?:from|import) (?:anthropic|mcp|cappella\.gateway\.mcp\.tools)\b", re.MULTILINE)
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "clients"]
    assert [path.name for path in paths if slow.search(path.read_text())] == []


def test_tests_of_real_engines_have_names_by_which_they_are_scheduled() -> None:
    marked = re.compile(r"^@pytest\.mark\.vllm\n(?:@.*\n)*(?:async )?def (?!test_real_)(\w+)", re.MULTILINE)
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if not path.name.startswith("test_real_")]
    assert {path.name: names for path in others if (names := marked.findall(path.read_text()))} == {}
    assert [
        path.name for path in others if re.search(r"^pytestmark = .*mark\.vllm", path.read_text(), re.MULTILINE)
    ] == []


@pytest.mark.parametrize("ticks", [1, 2, 3])
async def test_a_scripted_server_leaves_no_connection_open_whenever_it_closes(tmp_path: Path, ticks: int) -> None:
    server = ScriptedEngine("ann", lambda _: Script())
    path = await server.serve(tmp_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        # asyncio accepts in the first tick, and makes a transport in the second.
        for _ in range(ticks):
            await asyncio.sleep(0)
        await server.close()
    # Tells of what was not closed, as a warning.
    gc.collect()
