"""Digests of weights: what `sha256sum` would say, computed once, beside everything else."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import orjson
import pytest

from cappella.bundle import manifest
from cappella.config import Config
from cappella.telemetry.audit.weights import PENDING, UNREADABLE, WeightDigests, Weights
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.recorded_gateway import ask, client, recording_config

READ = ("config.json", "model.safetensors", "tokenizer.json")


def folder(path: Path, text: str = "weights") -> Path:
    path.mkdir(parents=True)
    for name in READ:
        (path / name).write_text(f"{text} {name}")
    (path / "README.md").write_text("not read by an engine")
    return path


def config(**weights: Path) -> Config:
    models = {name: {"weights": path, "max_model_len": 99} for name, path in weights.items()}
    return Config.model_validate({"models": models, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}})


def computed(config: Config, cache: Path) -> Mapping[str, str]:
    done: Queue[Mapping[str, str]] = Queue()
    digests = WeightDigests(cache)
    digests.find(Weights(config), done.put)
    try:
        return done.get(timeout=20)
    finally:
        digests.close()


def test_a_digest_is_what_sha256sum_makes_of_what_an_engine_reads(tmp_path: Path) -> None:
    ann, bob = folder(tmp_path / "ann"), folder(tmp_path / "bob", "others")
    found = computed(config(ann=ann, bob=bob), tmp_path / "cache")
    own = subprocess.run(
        ["sh", "-c", f"sha256sum {' '.join(READ)} | sha256sum"], cwd=ann, capture_output=True, check=True
    )
    assert found["ann"] == f"sha256:{own.stdout.decode().split()[0]}"
    assert found["bob"] != found["ann"]


@pytest.mark.parametrize("name", READ)
def test_a_file_that_changed_is_read_again_and_one_that_did_not_is_not(tmp_path: Path, name: str) -> None:
    ann, cache = folder(tmp_path / "ann"), tmp_path / "cache"
    before = computed(config(ann=ann), cache)
    times = (ann / name).stat().st_mtime_ns
    (ann / name).write_text(f"WEIGHTS {name}")
    os.utime(ann / name, ns=(times, times))
    assert computed(config(ann=ann), cache) == before  # size and time alone are looked at
    os.utime(ann / name, ns=(times, times + 1))
    assert computed(config(ann=ann), cache) != before


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": [1, 2]}'])
def test_a_cache_that_cannot_be_read_is_made_anew(tmp_path: Path, content: bytes) -> None:
    ann, cache = folder(tmp_path / "ann"), tmp_path / "cache"
    right = computed(config(ann=ann), cache)
    cache.write_bytes(content)
    assert computed(config(ann=ann), cache) == right
    assert len(orjson.loads(cache.read_bytes())) == len(READ)


def test_a_bundle_says_what_its_files_are(tmp_path: Path) -> None:
    ann = folder(tmp_path / "weights" / "ann")
    stored = [manifest.File(f"weights/ann/{name}", (ann / name).stat().st_size, "ab" * 32, "weights") for name in READ]
    wrong_size = [manifest.File(file.path, file.size_bytes + 1, file.sha256, file.role) for file in stored]
    others = [manifest.File(file.path.replace("ann", "bob"), *rest(file)) for file in stored]
    plain = computed(config(ann=ann), tmp_path / "1")
    for number, files in enumerate((wrong_size, others, stored)):
        manifest.write(tmp_path, manifest.Manifest("0", manifest.Target("linux_x86_64", "3.11"), tuple(files)))
        assert (computed(config(ann=ann), tmp_path / f"cache-{number}") != plain) is (files is stored)


def rest(file: manifest.File) -> tuple[int, str, str]:
    return file.size_bytes, file.sha256, file.role


def test_what_cannot_be_read_says_so_and_the_others_are_known(tmp_path: Path) -> None:
    found = computed(config(ann=tmp_path / "none", bob=folder(tmp_path / "bob")), tmp_path / "cache")
    assert found["ann"] == UNREADABLE
    assert found["bob"].startswith("sha256:")


def test_an_adapter_is_told_with_the_model_that_it_lies_on(tmp_path: Path) -> None:
    law = folder(tmp_path / "law", "adapter")
    base = config(ann=folder(tmp_path / "ann"))
    with_law = base.models["ann"].model_copy(update={"adapters": {"law": law}})
    weights = Weights(base.model_copy(update={"models": {"ann": with_law}}))
    assert weights.of(["law"]) == {"ann": PENDING, "law": PENDING}
    assert weights.of(["ann"]) == {"ann": PENDING}


def test_a_stop_does_not_wait_for_weights_without_end(tmp_path: Path) -> None:
    ann = folder(tmp_path / "ann")
    os.truncate(ann / "model.safetensors", 1 << 43)  # 8 TiB, of which nothing is on the disk
    weights, digests = Weights(config(ann=ann)), WeightDigests(tmp_path / "cache")
    digests.find(weights, lambda found: pytest.fail("it cannot have read that"))
    digests.close()
    assert weights.of(["ann"]) == {"ann": PENDING}


def test_another_config_keeps_the_digests_of_the_engines_that_go_on(tmp_path: Path) -> None:
    ann, bob = folder(tmp_path / "ann"), folder(tmp_path / "bob")
    before = Weights(config(ann=ann, bob=bob))
    before.found.update(ann="sha256:a", bob="sha256:b")
    after = Weights(config(ann=ann, bob=bob, cat=ann), before, comes=["bob", "cat"])
    assert after.of(["ann", "bob", "cat"]) == {"ann": "sha256:a", "bob": PENDING, "cat": PENDING}
    assert before.of(["bob"]) == {"bob": "sha256:b"}


def with_weights(config: Config, weights: Path) -> Config:
    models = {name: model.model_copy(update={"weights": weights}) for name, model in config.models.items()}
    return config.model_copy(update={"models": models})


def lines(tmp_path: Path) -> list[Mapping[str, Any]]:
    return [orjson.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]


async def test_runs_do_not_wait_for_digests(fake_engines: FakeEngines, tmp_path: Path) -> None:
    weights = folder(tmp_path / "weights")
    os.truncate(weights / "model.safetensors", 1 << 43)
    async with client(fake_engines, with_weights(recording_config(tmp_path), weights)) as http:
        assert (await ask(http))[0] == 200
    (line,) = lines(tmp_path)
    assert line["weights"] == dict.fromkeys(sorted((*MEMBERS, "judge")), PENDING)


async def test_a_line_tells_of_all_weights_once_they_are_known_and_every_run_of_its_own(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    async with client(fake_engines, with_weights(recording_config(tmp_path), folder(tmp_path / "weights"))) as http:
        assert await eventually(lambda: log.stat().st_size > 0)
        await ask(http, "ann")
    told, run = lines(tmp_path)
    assert told["kind"] == "weights"
    assert set(told["weights"]) == {*MEMBERS, "judge"}
    assert all(digest.startswith("sha256:") for digest in told["weights"].values())
    assert run["weights"] == {"ann": told["weights"]["ann"]}
