"""What a model says depends on: its weights, told by their edges, and the settings with which it is served."""

import hashlib
from pathlib import Path

from cappella.config import Config, Model, RemoteModel
from cappella.errors import ConfigError

EDGE_BYTES = 1 << 20
WEIGHT_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")


def digest(config: Config) -> str:
    """The same while all models of a config are the same. Raises ConfigError if their files cannot be read."""
    identities = [f"{name} {of_model(config, name)}" for name in sorted(config.models_by_name)]
    return hashlib.sha256("\n".join(identities).encode()).hexdigest()


def of_model(config: Config, name: str) -> str:
    """What identifies a model, or an adapter. Raises ConfigError if its files cannot be read."""
    model = config.models_by_name[name]
    if isinstance(model, RemoteModel):
        return f"{' '.join(sorted(model.urls))} {model.model or name}"
    own = model.adapters.get(name)
    parts = [_fingerprint(model.weights), _fingerprint(own) if own else "", _served(model)]
    return " ".join(parts)


def _served(model: Model) -> str:
    """The settings that change what a model says."""
    return f"{model.dtype} {model.kv_cache_dtype} {model.reasoning_parser} {sorted(model.engine_args.items())}"


def _fingerprint(folder: Path) -> str:
    """A hash of the files that an engine reads: of their names, sizes, first and last megabyte. Raises ConfigError."""
    found = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in WEIGHT_SUFFIXES and path.is_file() and not path.name.startswith("."):
                size = path.stat().st_size
                with path.open("rb") as file:
                    head = file.read(EDGE_BYTES)
                    file.seek(max(0, size - EDGE_BYTES))
                    found.update(f"{path.name} {size} ".encode() + head + file.read(EDGE_BYTES))
    except OSError as error:
        raise ConfigError(str(folder), f"cannot be read ({error})", "Check models.NAME.weights") from error
    return found.hexdigest()
