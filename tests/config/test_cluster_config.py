"""Mistakes in a config on a Ray cluster are told with their line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cappella.config.load import load
from cappella.errors import ConfigError
from support.config_file import write_config

GOOD = """\
models:
  ann: {weights: ./ann, max_model_len: 64, kv_cache_bytes: 1MiB}
placement:
  ray: {address: auto}
ensembles:
  default: {panel: [ann], judge: ann}
"""


def test_a_cluster_is_auto_or_an_address_and_its_token_is_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    assert load(write_config(tmp_path, GOOD)).placement.ray is not None
    for address in ("10.0.0.1:6379", "'[fd00::1]:6379'"):
        text = GOOD.replace("address: auto", f"address: {address}, token_file: token")
        ray = load(write_config(tmp_path, text)).placement.ray
        assert ray is not None
        assert ray.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("auto", "10.0.0.1", r"c.yaml:4: placement.ray.address: .*is no address of a Ray cluster"),
        ("auto", "head.lan:6379", r"c.yaml:4: placement.ray.address: .*is no address of a Ray cluster"),
        ("address: auto", "adress: auto", r"c.yaml:4: placement.ray.adress: unknown key"),
        ("address: auto", "token_file: none", r"c.yaml:4: placement.ray.token_file: there is no file .*none"),
        ("  ray:", "  swap: true\n  ray:", r"c.yaml:\d: placement: swap and ray exclude each other"),
        ("  ray:", "  mps: true\n  ray:", r"c.yaml:\d: placement: mps and ray exclude each other"),
        ("1MiB}", "1MiB, gpus: [0]}", r"c.yaml:2: models.ann.gpus: gpus counts those of one machine"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=says):
        load(write_config(tmp_path, GOOD.replace(old, new)))


def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    """In a Python that does not find Ray."""
    (tmp_path / "hidden" / "ray.py").parent.mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
    )
    paths = os.pathsep.join([str(tmp_path / "hidden"), str(Path(__file__).parents[2] / "runtime")])
    command = [sys.executable, "-m", "cappella", "plan", str(write_config(tmp_path, GOOD))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 2
    assert "cappella[ray]" in done.stderr
