"""Configs: every file that ships loads, and every mistake is named with its place and its mend."""

from pathlib import Path

import pytest

from cappella.config import load
from cappella.errors import ConfigError

ROOT = Path(__file__).parents[1]
GOOD = """\
models:
  ann: {weights: w/ann, max_model_len: 64, kv_cache_bytes: 1MiB}
  bob: {weights: /abs/bob, max_model_len: 64, kv_cache_bytes: 1MiB}
ensembles:
  default:
    panel: [ann, {model: bob, temperature: 0.5}, ann]
    judge: bob
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_seats_get_names(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.models["ann"].weights == tmp_path / "w" / "ann"
    assert config.models["bob"].weights == Path("/abs/bob")
    seats = config.ensembles["default"].seats
    assert [seat.name for seat in seats] == ["ann", "bob", "ann#2"]
    assert seats[1].sampling.temperature == 0.5
    assert config.ensembles["default"].quorum_of(3) == 2
    assert config.ensembles["default"].judge.sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max_model_len: 64", "max_model_length: 64", r"c.yaml:2: models.ann.max_model_length: unknown key. Did you"),
        ("temperature:", "temprature:", r"c.yaml:6: ensembles.default.panel.1.temprature: .* mean temperature\?"),
        ("judge: bob", "judges: bob", r"c.yaml:7: ensembles.default.judges: unknown key. Did you mean judge\?"),
        (
            "judge: bob",
            "judge: rob",
            r"c.yaml:7: ensembles.default.judge: there is no model 'rob'.*Use one of ann, bob",
        ),
        ("judge: bob", "judge: bob\n    quorum: 4", r"c.yaml:5: ensembles.default: quorum 4 is larger than"),
        ("judge: bob", "judge: bob\n    analysis: x", r"c.yaml:8: ensembles.default.analysis: .*'before'"),
        ("judge: bob", "judge: bob\n    judge: ann", r"c.yaml:8: judge: this key stands twice"),
        ("panel: [ann,", "panel: [zed,", r"c.yaml:6: ensembles.default.panel.0: there is no model 'zed'"),
        ("1MiB}\n  bob", "1MiB, engine_args: {trust-remote-code: true}}\n  bob", r"c.yaml:2: .*trust-remote-code"),
        ("kv_cache_bytes: 1MiB}\n  bob", "kv_cache_bytes: much}\n  bob", r"c.yaml:2: models.ann.kv_cache_bytes"),
        ("models:", "server: {host: 0.0.0.0}\nmodels:", r"c.yaml:1: server: host '0.0.0.0' is not a loopback"),
        ("models:", "modles:", r"c.yaml:1: modles: unknown key. Did you mean models\?"),
        ("[ann,", "[ann", r"c.yaml:\d+: is not valid YAML"),
        (GOOD, "", r"c.yaml:1: the file: .*Change the value"),
        (GOOD, "- 1", r"c.yaml:1: the file"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_mend(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "model_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load(path).ensembles
