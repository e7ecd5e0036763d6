"""`cappella bench batch` as it is called, over a real gateway and scripted engines, and what it sees of engines."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cappella.bench.engine_watch import Watch
from support.batch_clients import batching
from support.command_line import cappella
from support.fake_engines import MEMBERS, FakeEngines
from support.scripted_engine import Script

MODELS = "\n".join(
    f"  {name}: {{weights: x, max_model_len: 100, kv_cache_bytes: 1MiB}}" for name in (*MEMBERS, "judge")
)
CONFIG = f"models:\n{MODELS}\nensembles:\n  default: {{panel: [ann, bob, cat], judge: judge}}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


async def bench(config: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(cappella, "bench", "batch", config, *options)


async def test_both_ways_answer_as_many_rows_with_the_same_calls(
    fake_engines: FakeEngines, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "batch.json"
    async with batching(fake_engines, tmp_path) as url:
        done = await bench(config, "--url", url, "--rows", "5", "--at-once", "2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for way in ("online", "batch"):
        engines = found[way]["engines"]
        assert (found[way]["rows"], found[way]["ends"]) == (5, {"ok": 5})
        assert {name: each["calls"] for name, each in engines.items()} == {
            **{name: {"panel": 5} for name in MEMBERS},
            "judge": {"final": 5},
        }
    assert found["ratio"] == pytest.approx(found["batch"]["rows_per_s"] / found["online"]["rows_per_s"], rel=0.01)
    assert not list((tmp_path / "batches").glob("file-*"))
    assert "one batch" in done.stdout


async def test_how_runs_ended_is_counted(fake_engines: FakeEngines, config: Path, tmp_path: Path) -> None:
    refused = Script(refuse=(400, {"error": {"message": "no such thing", "code": 400}}))
    async with batching(fake_engines, tmp_path) as url:
        fake_engines.let("judge", lambda asked: refused if "3: " in str(asked["messages"]) else Script())
        done = await bench(config, "--url", url, "--rows", "2", "--at-once", "1", "--json", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out").read_text())
    # The third prompt of all, after the one that warms up: the judge does not answer it.
    assert found["online"]["ends"] == {"ok": 1, "degraded": 1}
    assert found["batch"]["ends"] == {"ok": 2}


async def test_a_server_without_batches_is_told_before_it_starts(config: Path) -> None:
    done = await bench(config)
    assert done.returncode == 2
    assert "server.batch is not set" in done.stderr


def engines(**running: int | None) -> dict[str, Any]:
    turns = {"ann": 0, "bob": 1, "judge": None}
    return {
        name: {"state": "ready" if name in running else "asleep", "turn": turn, "running": running.get(name)}
        for name, turn in turns.items()
    }


def test_an_engine_is_busy_while_it_runs_calls_and_one_that_does_not_tell_does_what_it_did() -> None:
    watch = Watch()
    for each in (engines(ann=2, judge=0), engines(ann=None, judge=1), engines(ann=0, judge=0), engines(ann=None)):
        watch.add(each, 0.5)
    assert (dict(watch.busy_s), watch.any_busy_s, watch.watched_s) == ({"ann": 1.0, "judge": 0.5}, 1.0, 2.0)


def test_a_swap_is_a_group_that_is_awake_after_another() -> None:
    watch = Watch()
    for each in (engines(ann=1, judge=1), engines(judge=1), engines(judge=1, bob=0), engines(bob=1), engines(ann=1)):
        watch.add(each, 0.5)
    assert watch.swaps == 2
