"""The shape whose engines the tests on a GPU run.

`scripts/test_gpu` runs them. CAPPELLA_GPU_SHAPE chooses the shape that scripts/make_shape writes: `1b` unless it is set;
`8b` is for a GPU of 80 GB, and `30m` tries the tests themselves on a CPU. CAPPELLA_GPU_WEIGHTS is a folder that keeps it.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from cappella.placement import machine
from support.gpu_report import SHAPE
from support.on_gpu import ConfigMap
from support.real_deployment import ROOT


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip these tests where no GPU is, also if a marker on the command line chose them."""
    if machine.has_gpu() or "CAPPELLA_GPU_SHAPE" in os.environ:
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def on_gpu() -> bool:
    """Whether this machine has a GPU that engines use."""
    return machine.own().gpu


@pytest.fixture(scope="session")
def write_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[ConfigMap], None]], Path]:
    """Writes the shape's config under a name after a change to it, with absolute paths."""
    kept = os.environ.get("CAPPELLA_GPU_WEIGHTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("shapes")
    if not (folder / f"{SHAPE}.yaml").exists():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "make_shape"), SHAPE, str(folder)], check=True)

    def write(name: str, change: Callable[[ConfigMap], None]) -> Path:
        config = yaml.safe_load((folder / f"{SHAPE}.yaml").read_text())
        for model in config["models"].values():
            model["weights"] = str(folder / SHAPE)
        change(config)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
