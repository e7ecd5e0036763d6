"""The pinned packages that each kind of machine needs: `cpu`, `gpu`, and `base` without vLLM. `scripts/lock` writes them."""

from pathlib import Path

from cappella.errors import ConfigError
from cappella.placement import machine

FOLDER = Path(__file__).parent
NAMES = ("cpu", "gpu", "base")


def path_of(name: str) -> Path:
    """The list of a kind of machine, or the file of this path. Raises ConfigError if there is neither."""
    path = FOLDER / f"{name}.txt" if name in NAMES else Path(name)
    if not path.is_file():
        raise ConfigError(name, "there is no such list of packages", f"Name a file, or one of {', '.join(NAMES)}")
    return path


def of_this_machine() -> str:
    """`gpu` where NVIDIA's driver shows a GPU, else `cpu`."""
    return "gpu" if machine.has_gpu() else "cpu"
