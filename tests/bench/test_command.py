"""`cappella bench` as it is called, over a real gateway and scripted engines."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from support.command_line import cappella
from support.fake_engines import FakeEngines

CONFIG = """
models:
{models}
ensembles:
  default: {{panel: [ann, bob, cat], judge: judge}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    names = ("ann", "bob", "cat", "judge")
    models = "\n".join(f"  {name}: {{weights: x, max_model_len: 100, kv_cache_bytes: 1MiB}}" for name in names)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(models=models))
    return path


async def bench(config: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(cappella, "bench", config, "--runs", "2", "--rounds", "1", *options)


async def test_every_variant_and_rival_has_a_line_under_every_load(
    fake_engines: FakeEngines, gateway: str, config: Path, tmp_path: Path
) -> None:
    done = await bench(
        config,
        *("--url", gateway, "--against", "single,naive", "--concurrency", "1,2", "--fusion", "analysis=off"),
        *("--vary", "early_prefill=true/false", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "bench.json").read_text())["figures"]
    systems = ["cappella early_prefill=True", "cappella early_prefill=False", "one model", "naive script"]
    assert [(each["system"], each["load"]) for each in found] == [
        (system, load) for load in ("1 at once", "2 at once") for system in systems
    ]
    assert all(each["runs"] == 2 and not each["failed"] for each in found)
    assert "naive script" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--against", "gpt"), "--against: 'gpt'"),
        (("--ensemble", "nobody"), "--ensemble: "),
        (("--concurrency", "1,many"), "--concurrency: '1,many' is not a list"),
        (("--vary", "early_prefill"), "--vary: 'early_prefill'"),
        (("--fusion", "criteria={"), "--fusion: 'criteria={'"),
        (("--concurrency", "0"), "--concurrency: '0'"),
        (("--prompts", "/nowhere"), "/nowhere: cannot be read"),
    ],
)
async def test_a_mistake_is_told_with_its_place_before_anything_starts(
    config: Path, options: tuple[str, str], words: str
) -> None:
    done = await bench(config, "--url", "http://127.0.0.1:1", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


async def test_a_server_that_is_not_there_gives_no_figures_and_says_why(config: Path) -> None:
    done = await bench(config, "--url", "http://127.0.0.1:1", "--concurrency", "1")
    assert "no reply: " in done.stderr
    assert done.returncode == 1
