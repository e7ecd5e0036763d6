"""Weights come from the hub at one commit, only what is needed, on from where it stopped; over a scripted hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command_line import cappella
from support.scripted_hub import COMMIT, FILES, Hub, running
from support.small_bundle import CARD, deployment

pytest.importorskip("huggingface_hub")

NEEDED = {
    "config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "model.safetensors",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


def config(folder: Path, **card: Any) -> Path:
    path = deployment(folder, card="card.yaml", weights="pulled")
    (folder / "card.yaml").write_text(json.dumps({**CARD, **card}))
    return path


def pull(hub: Hub, path: Path, *options: str) -> tuple[int, str, str]:
    home = str(path.parent / "hf")
    done = cappella("pull", path, *options, HF_HOME=home, **hub.environment)
    return done.returncode, done.stdout, done.stderr


def test_only_what_an_engine_reads_comes_and_its_licence_is_shown(hub: Hub, tmp_path: Path) -> None:
    path = config(tmp_path)
    code, said, error = pull(hub, path)
    assert code == 0, error
    assert "licence: mit (the card says apache-2.0); not gated; licence text: LICENSE" in said
    weights = tmp_path / "pulled"
    assert {each.name for each in weights.iterdir()} == {*NEEDED, ".pulled.json"}
    assert all((weights / name).read_bytes() == FILES[name] for name in NEEDED)
    hub.asked.clear()
    assert "is complete" in pull(hub, path)[1]
    assert hub.asked == []


def test_a_pull_that_broke_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    path, partial = config(tmp_path), tmp_path / "pulled" / "model.safetensors.partial"
    partial.parent.mkdir()
    hub.gated = True
    code, _, error = pull(hub, path)
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert "is gated" in error
    hub.gated = False
    partial.write_bytes(FILES["model.safetensors"][:300_000])
    assert pull(hub, path)[0] == 0
    assert (f"/maker/ann/resolve/{COMMIT}/model.safetensors", "bytes=300000-") in hub.asked
    assert (tmp_path / "pulled" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_has_another_hash_than_the_hub_says_is_not_kept(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.served[name] = bytes(len(FILES[name]))
    code, _, error = pull(hub, config(tmp_path))
    assert code == 2
    assert f"{name}: its hash" in error
    assert not list((tmp_path / "pulled").glob(f"{name}*"))
    hub.served = dict(FILES)
    assert pull(hub, tmp_path / "c.yaml")[0] == 0


def test_a_card_without_a_revision_is_refused_unless_one_says_so(hub: Hub, tmp_path: Path) -> None:
    path = config(tmp_path, revision=None)
    code, _, error = pull(hub, path)
    assert code == 2
    assert "card.yaml: revision: pins no revision" in error
    assert hub.asked == []
    code, said, error = pull(hub, path, "--unpinned")
    assert code == 0, error
    assert f"at revision {COMMIT}" in said
    assert "to pin this version" in said


def test_what_the_hub_has_not_is_one_line_and_exit_code_2(hub: Hub, tmp_path: Path) -> None:
    for card, says in [({"revision": "b" * 40}, "has no revision b"), ({"hub_id": "maker/bob"}, "is not on the hub")]:
        code, _, error = pull(hub, config(tmp_path, **card))
        assert code == 2
        assert says in error
        assert len(error.strip().splitlines()) == 1
    hub.shutdown()
    hub.server_close()
    code, _, error = pull(hub, config(tmp_path))
    assert code == 2
    assert "cannot be downloaded" in error
    assert len(error.strip().splitlines()) == 1


def test_weights_of_another_commit_or_of_ones_own_are_left_alone(hub: Hub, tmp_path: Path) -> None:
    path, weights = config(tmp_path), tmp_path / "pulled"
    weights.mkdir()
    (weights / "config.json").write_text("mine")
    code, said, _ = pull(hub, path)
    assert (code, (weights / "config.json").read_text()) == (0, "mine")
    assert "was not made by `pull`" in said
    (weights / "config.json").unlink()
    assert pull(hub, path)[0] == 0
    code, _, error = pull(hub, config(tmp_path, revision="c" * 40))
    assert code == 2
    assert f"maker/ann at {COMMIT}, but maker/ann at {'c' * 40} is wanted" in error
