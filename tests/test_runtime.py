"""The Python API over real processes, with a scripted engine in vLLM's place."""

from pathlib import Path

import pytest

import cappella
from support.scripted_stack import scripted_config


async def test_each_runtime_has_a_log_folder_of_its_own_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, _ = scripted_config(tmp_path, monkeypatch)
    logs = tmp_path / "state" / "cappella"
    async with cappella.Runtime(path) as first, cappella.Runtime(path) as second:
        assert (await first.ask("Hi")).status == (await second.ask("Hi")).status == "ok"
        assert sorted(log.parent.name for log in logs.glob("*/ann.log")) == ["logs-runtime-1", "logs-runtime-2"]
    async with cappella.Runtime(path):
        assert len(list(logs.iterdir())) == 3  # and what starts took
