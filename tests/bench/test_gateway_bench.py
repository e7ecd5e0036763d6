"""`cappella bench gateway`: one gateway process under load, over scripted engines."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from support.command_line import cappella


async def bench(*options: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(cappella, "bench", "gateway", "--seconds", "1", "--tokens", "5", *options)


async def test_it_says_what_the_gateway_added_and_lost_no_run(tmp_path: Path) -> None:
    out = tmp_path / "gateway.json"
    done = await bench("--runs", "2", "--panel", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["troubles"] == {}
    assert figures["runs_per_s"] > 0
    assert figures["overhead_ms"].keys() == {"p50", "p99", "max"}
    assert set(figures["cores"]) == {"gateway", "engines", "client"}
    assert "overhead of a run, ms" in done.stdout


@pytest.mark.parametrize("option", [("--runs", "0"), ("--analysis", "sometimes"), ("--overload", "0.5")])
async def test_an_impossible_load_is_refused_before_anything_starts(option: tuple[str, str]) -> None:
    done = await bench(*option)
    assert done.returncode == 2
    assert option[0] in done.stderr
