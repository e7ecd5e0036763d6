"""What a config on a Ray cluster may not have."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from cappella.config import Config, yaml_source
from cappella.errors import ConfigError


def check(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """GPUs by number, which each node has anew, and a token that is not there."""
    ray = config.placement.ray
    if ray is None:
        return
    for name, model in config.local.items():
        if model.gpus is not None:
            at = yaml_source.place(path, root, ("models", name, "gpus"))
            problem = "gpus counts those of one machine, and placement.ray has several"
            yield ConfigError(at, problem, "Remove gpus: the plan chooses a node; tensor_parallel_size sets a split")
    if ray.token_file and not ray.token_file.is_file():
        at = yaml_source.place(path, root, ("placement", "ray", "token_file"))
        yield ConfigError(at, f"there is no file {ray.token_file}", "Name the file that RAY_AUTH_TOKEN_PATH names")
