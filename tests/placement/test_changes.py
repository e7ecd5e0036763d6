"""What is proposed for a config: YAML that makes it fit, or better, once it is pasted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config import cards, load
from cappella.errors import DoesNotFit
from cappella.placement import advice, changes, estimate, improvements, machine
from support.command_line import cappella

LARGE = {"qwen": "Qwen/Qwen3-32B", "llama": "meta-llama/Llama-3.1-8B-Instruct", "gemma": "google/gemma-3-12b-it"}


def write(tmp_path: Path, changes: dict[str, Any] | None = None, **models: Any) -> Path:
    """A config of models by hub id or settings, with pasted changes merged into it."""
    settings = {
        name: {"max_model_len": 8192, **({"weights": each} if isinstance(each, str) else each)}
        for name, each in (models or LARGE).items()
    }
    for name, keys in (changes or {}).get("models", {}).items():
        settings[name] |= keys
    panel, judge = list(settings), next(iter(settings))
    whole = {"models": settings, "ensembles": {"default": {"panel": panel, "judge": judge}}}
    whole |= {key: value for key, value in (changes or {}).items() if key != "models"}
    path = tmp_path / "cappella.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


def pastes(path: Path, gpus: str) -> list[str]:
    with pytest.raises(DoesNotFit) as caught:
        advice.plan(load.load(path), machine.described(gpus))
    return list(caught.value.pastes)


@pytest.mark.parametrize("gpus", ["H100", "2x4090", "A6000", "2xL4", "A100-40", "80GiB"])
def test_every_change_that_is_pasted_makes_the_config_fit(tmp_path: Path, gpus: str) -> None:
    proposed = pastes(write(tmp_path), gpus)
    assert proposed
    for paste in proposed:
        changed = write(tmp_path, yaml.safe_load(paste))
        assert advice.plan(load.load(changed), machine.described(gpus)).placed.keys() == LARGE.keys()


def test_other_weights_are_named_by_a_hub_id_that_has_a_card(tmp_path: Path) -> None:
    first, *others = pastes(write(tmp_path), "H100")
    assert first == ("# Qwen/Qwen3-32B-AWQ instead of Qwen/Qwen3-32B\nmodels:\n  qwen: {weights: Qwen/Qwen3-32B-AWQ}\n")
    named = [
        keys["weights"]
        for paste in (first, *others)
        for keys in yaml.safe_load(paste)["models"].values()
        if "weights" in keys
    ]
    assert len(named) > 1
    assert all(cards.shipped(name) for name in named)


def test_weights_of_ones_own_with_a_card_get_the_card_of_the_new_ones(tmp_path: Path) -> None:
    own = {"weights": "./own", "card": "Qwen/Qwen3-32B"}
    paste = pastes(write(tmp_path, qwen=own), "24GiB")[0]
    assert yaml.safe_load(paste)["models"]["qwen"] == {"weights": "Qwen/Qwen3-32B-AWQ", "card": "Qwen/Qwen3-32B-AWQ"}


def test_a_key_that_has_to_go_is_named(tmp_path: Path) -> None:
    long = {"weights": LARGE["llama"], "max_model_len": 131072, "kv_cache_bytes": "30GiB", "kv_cache_dtype": "fp8"}
    assert "# Remove llama.kv_cache_bytes.\nmodels:\n  llama: {max_model_len: 65536}" in "".join(
        pastes(write(tmp_path, llama=long), "24GiB")
    )


@pytest.mark.parametrize(("gpus", "offered"), [("A6000", False), ("L40S", True), ("48GiB", True)])
def test_an_fp8_cache_is_offered_only_where_it_runs(tmp_path: Path, gpus: str, offered: bool) -> None:
    long = {"weights": LARGE["llama"], "max_model_len": 81920}
    path = write(tmp_path, one=long, two={**long, "max_model_len": 65536})
    assert any("kv_cache_dtype: fp8" in paste for paste in pastes(path, gpus)) == offered


def test_weights_that_are_quantised_while_they_load_take_half_but_for_the_embeddings(tmp_path: Path) -> None:
    plain = {"weights": LARGE["llama"]}
    on_load = {**plain, "engine_args": {"quantization": "fp8_per_tensor"}}
    plan = advice.plan(load.load(write(tmp_path, plain=plain, fp8=on_load)), machine.described("H100"))
    kept = 2 * 2 * 128256 * 4096 + 2 * 131072 * 128
    halved = kept + (plan.placed["plain"].weight_bytes - kept) / 2
    assert plan.placed["fp8"].weight_bytes == pytest.approx(halved, rel=0.001)


def test_a_command_prints_what_to_paste_below_the_error(tmp_path: Path) -> None:
    done = cappella("plan", str(write(tmp_path)), "--gpus", "H100", COLUMNS="60")
    line, paste = done.stderr.split("\n\n", 1)
    assert (done.returncode, line.startswith("error: models: they need")) == (2, True)
    assert paste.startswith("# Qwen/Qwen3-32B-AWQ instead of Qwen/Qwen3-32B\nmodels:\n  qwen: {weights")


def test_one_more_gpu_of_a_kind_with_nvlink_is_linked_to_the_only_one(tmp_path: Path) -> None:
    config = load.load(write(tmp_path, qwen="Qwen/Qwen3.5-122B-A10B"))
    # NVML finds no NVLink at an H100 that is alone.
    alone = machine.Machine([replace(machine.described("H100").devices[0], linked=False)], gpu=True)
    (found,) = [each for each in changes.cheapest(*advice.measured(config, alone)) if each.description == "3 more H100"]
    expected = advice.plan(config, machine.described("4xH100")).placed["qwen"]
    assert found.plan.placed["qwen"].overhead_bytes == expected.overhead_bytes


@pytest.mark.parametrize(("kind", "linked"), [("H100", True), ("L40S", False), ("H100-PCIe", False), ("24GiB", None)])
def test_an_added_gpu_is_linked_as_its_kind_is(kind: str, linked: bool | None) -> None:
    (one,) = machine.described(kind).devices
    added = machine.added_device(replace(one, linked=linked and False, free_bytes=1), 5)
    assert (added.index, added.free_bytes, added.kind, added.linked) == (5, one.total_bytes, one.kind, linked)


def test_a_plan_that_fits_says_what_would_give_more_runs(tmp_path: Path) -> None:
    path = write(tmp_path, llama=LARGE["llama"])
    config, on = load.load(path), machine.described("L4")
    plan = advice.plan(config, on)
    (change,) = improvements.of(config, on, plan)
    assert change.paste.endswith("models:\n  llama: {kv_cache_dtype: fp8}\n")
    assert "Possible: a KV cache in fp8" in cappella("plan", str(path), "--gpus", "L4").stdout
    better = write(tmp_path, yaml.safe_load(change.paste), llama=LARGE["llama"])
    after = advice.plan(load.load(better), on)
    runs = [estimate.estimates(config, each)["default"].runs_at_once for each in (plan, after)]
    assert runs[1] == pytest.approx(2 * runs[0], rel=0.05)
    assert f"{runs[1]:.1f} runs at once instead of {runs[0]:.1f}" in change.description
    assert improvements.of(config, machine.described("A10"), plan) == []


def test_a_plan_that_fits_says_which_context_would_hold_a_typical_run(tmp_path: Path) -> None:
    path = write(tmp_path, llama={"weights": LARGE["llama"], "max_model_len": 2048})
    config, on = load.load(path), machine.described("H100")
    change = improvements.of(config, on, advice.plan(config, on))[0]
    assert yaml.safe_load(change.paste) == {"models": {"llama": {"max_model_len": 4096}}}
