"""LoRA adapters: callable names, one engine, and memory for the largest rank."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, Model
from cappella.config.load import load
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError
from cappella.placement import adapters, advice, architecture, machine
from cappella.placement.planner import Placed
from support.weights_folder import TINY, write_model, write_safetensors


def write_adapter(folder: Path, config: Any = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 16} if config is None else config))
    write_safetensors(folder / "adapter_model.safetensors", {"x.lora_A.weight": ("BF16", (16, 64))})
    return folder


def model(**adapter_folders: Path) -> Model:
    folders = {name: str(path) for name, path in adapter_folders.items()}
    return Model.model_validate({"weights": "/w", "max_model_len": 64, "adapters": folders})


def test_the_engine_reserves_the_largest_rank_rounded_up(tmp_path: Path) -> None:
    found = model(law=write_adapter(tmp_path / "a", {"r": 9}), code=write_adapter(tmp_path / "b", {"r": 4}))
    assert adapters.served_rank(found) == 16
    flags = server_args.arguments("base", found, Placed("base", (0,), 0, 0, 1 << 20, 64, 1, 2048, ""), Path("/s"))
    at = flags.index("--lora-modules")
    assert flags[at + 1 : at + 3] == [f"law={tmp_path / 'a'}", f"code={tmp_path / 'b'}"]
    assert flags[flags.index("--max-lora-rank") + 1] == "16"
    assert flags[flags.index("--max-loras") + 1] == "2"
    assert "--enable-lora" in flags


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "has no valid rank"),
        ({"r": "x"}, "has no valid rank"),
        ([], "not a JSON object"),
        ({"r": 4096}, "more than vLLM supports"),
    ],
)
def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path, config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        adapters.served_rank(model(law=write_adapter(tmp_path / "a", config)))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match=r"adapters\.law: .* there is no adapter_model\.safetensors"):
        adapters.served_rank(model(law=tmp_path / "a"))


def test_slots_are_counted_for_every_projection_and_the_vocabulary(tmp_path: Path) -> None:
    read = architecture.read(TINY, "c")
    layer = 7 * 64 + 4 * 64 + 3 * 192
    expected = 2 * 16 * (2 * layer + 2 * (64 + 128))
    assert adapters.slots_bytes(model(law=write_adapter(tmp_path / "a")), read, 1) == expected
    assert adapters.slots_bytes(model(), read, 1) == 0


def test_on_a_cpu_each_token_of_a_step_takes_a_copy(tmp_path: Path) -> None:
    read = architecture.read(TINY, "c")
    assert adapters.gathered_bytes(model(law=write_adapter(tmp_path / "a")), read, 2048) == 6 * 2048 * 16 * 192
    assert adapters.gathered_bytes(model(), read, 2048) == 0


def panel(tmp_path: Path, **fields: Any) -> Path:
    write_model(tmp_path / "base")
    for name in ("law", "code"):
        if not (tmp_path / name).exists():
            write_adapter(tmp_path / name)
    base = {"weights": "base", "max_model_len": 64, "adapters": {"law": "law", "code": "code"}, **fields}
    ensemble = {"panel": ["base", "law", "code"], "judge": "base"}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"models": {"base": base}, "ensembles": {"default": ensemble}}))
    return path


def test_a_panel_of_adapters_is_one_engine_and_each_is_called_by_its_name(tmp_path: Path) -> None:
    config = load(panel(tmp_path))
    assert list(config.models_by_name) == ["base", "law", "code"]
    assert config.models["base"].adapters["law"] == tmp_path / "law"
    assert config.names_of(["base"]) == ["base", "law", "code"]
    assert config.ensembles["default"].can_answer(config.names_of(["base"]))
    plan = advice.plan(config, machine.described("24GiB"))
    assert list(plan.placed) == ["base"]
    bare = advice.plan(_without(config), machine.described("24GiB"))
    assert plan.placed["base"].overhead_bytes > bare.placed["base"].overhead_bytes


def _without(config: Config) -> Config:
    """The same config without adapters."""
    base = config.models["base"].model_copy(update={"adapters": {}})
    return config.model_copy(update={"models": {"base": base}})


def test_a_name_that_is_used_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'base' is used twice among the names of models and adapters"):
        load(panel(tmp_path, adapters={"base": "law"}))


def test_an_undeclared_adapter_is_unknown(tmp_path: Path) -> None:
    path = panel(tmp_path)
    path.write_text(path.read_text().replace('"panel": ["base", "law"', '"panel": ["base", "lore"'))
    with pytest.raises(ConfigError, match=r"there is no model 'lore' under models\. Use one of base, law, code"):
        load(path)
