"""`cappella init` writes a config that is served as it is, or says what is missing."""

import json
from pathlib import Path

import pytest

from cappella.bundle import first_config
from cappella.config import cards, load
from cappella.placement import advice, machine
from support.command_line import cappella
from support.weights_folder import TINY, write_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two chat models of different families, one without a chat template, a reward model, and a broken one."""
    for name, kind in (("one/alpha-Instruct", "llama"), ("two/beta", "qwen3")):
        folder = write_model(tmp_path / name, {**TINY, "model_type": kind})
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    write_model(tmp_path / "three" / "base")
    reward = write_model(tmp_path / "five" / "reward", {**TINY, "architectures": ["LlamaForSequenceClassification"]})
    (reward / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (write_model(tmp_path / "four" / "broken") / "model.safetensors").unlink()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {"CAPPELLA_MODELS": str(home), "HF_HUB_CACHE": str(home / "hub"), "XDG_STATE_HOME": str(home / "state")}


def test_the_models_that_are_here_become_a_config_that_fits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cappella("init", folder=home, **environment(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 models of 2 families (llama, qwen)" in done.stdout
    assert done.stdout.endswith("Wrote cappella.yaml. Next: cappella serve cappella.yaml\n")
    monkeypatch.setenv("CAPPELLA_MODELS", str(home))
    config = load.load(home / "cappella.yaml")
    assert [seat.model for seat in config.ensembles["default"].seats] == ["alpha", "beta"]
    assert advice.plan(config, machine.own()).placed.keys() == {"alpha", "beta"}
    again = cappella("init", folder=home, **environment(home))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_named_models_are_planned_for_other_gpus_and_printed(home: Path) -> None:
    names = "Qwen/Qwen3-8B,meta-llama/Llama-3.1-8B-Instruct,google/gemma-3-12b-it"
    done = cappella("init", "--models", names, "--gpus", "1x80GiB", "--dry-run", folder=home, **environment(home))
    assert done.returncode == 0, done.stderr
    assert "    panel: [qwen3-8b, llama-3.1-8b, gemma-3-12b]\n    judge: gemma-3-12b\n" in done.stdout
    assert not (home / "cappella.yaml").exists()
    small = cappella("init", "--models", names, "--gpus", "8GiB", "--dry-run", folder=home, **environment(home))
    assert (small.returncode, "Each of these would do" in small.stderr or "fewer or smaller" in small.stderr) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init", "--models", "no/such"], "`cappella pull no/such`"),
        (["init", "--models", "./nowhere"], "Name a folder or a hub id"),
        (["init", "--judge", "one/alpha"], "needs --models"),
        (["serve", "no/such", "two/beta"], "`cappella pull no/such`"),
        (["serve", "Qwen/Qwen3-8B", "two/beta"], "Fetch them: `cappella pull Qwen/Qwen3-8B`"),
        (["serve"], "write one with `cappella init`"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(home: Path, arguments: list[str], says: str) -> None:
    done = cappella(*arguments, folder=home, **environment(home))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_machine_without_a_gpu_and_models_is_told_to_pull_one(tmp_path: Path) -> None:
    done = cappella("init", folder=tmp_path, **environment(tmp_path))
    assert (done.returncode, "`cappella pull" in done.stderr) == (2, True)


@pytest.mark.parametrize("gpus", ["1x24GiB", "2x24GiB", "1x80GiB", "8x80GiB"])
def test_a_machine_with_gpus_and_no_models_is_told_which_to_pull(tmp_path: Path, gpus: str) -> None:
    done = cappella("init", "--gpus", gpus, "--out", tmp_path / "c.yaml", **environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"Next: cappella pull {tmp_path / 'c.yaml'} (" in done.stdout


def test_every_recommended_model_has_a_card_and_is_open_to_anybody() -> None:
    known = [path and cards.load(path) for path in map(cards.shipped, first_config.RECOMMENDED)]
    assert all(card and not card.gated for card in known)
