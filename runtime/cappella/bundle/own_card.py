"""`cappella card`: a card made from a model's own files, on this machine or on the hub."""

import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cappella.bundle import hub, inventory, origin
from cappella.bundle.progress import Bar
from cappella.config import hub_library, incomplete, weights, yaml_source
from cappella.config.cards import Card
from cappella.config.weights import HubName
from cappella.errors import ConfigError
from cappella.placement import architecture, checkpoint, own_context, parameters
from cappella.placement.checkpoint import Tensor
from cappella.placement.folder import read_json

UNCONFIRMED = ("tool_parser", "reasoning_parser")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
READ_FROM_HUB = ("config.json", "generation_config.json")


def text(model: str) -> str:
    """The YAML of a card for a folder or a hub id. Raises ConfigError."""
    folder = weights.locate(model, Path.cwd())
    card = _of_folder(model, folder) if folder.is_dir() else _of_hub(model)
    facts = {**card.model_dump(mode="json"), "sampling": card.sampling.given()}
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _of_folder(model: str, folder: Path) -> Card:
    if reason := incomplete.reason(folder):
        raise ConfigError(str(folder), reason, "Fetch or copy the rest")
    recorded = origin.read(folder / origin.NAME)
    name = weights.named_by(folder) or HubName(recorded.hub_id if recorded else f"local/{folder.resolve().name}")
    tensors = checkpoint.tensors(folder, str(folder))
    known = {
        "hub_id": name.hub_id,
        "revision": recorded.revision if recorded else name.revision,
        "licence": inventory.licence(name, folder),
        "gated": False,
        "weight_bytes": _size_bytes(tensors),
        "encoder_bytes": _size_bytes(tensors) - _size_bytes(checkpoint.without_encoders(tensors)),
    }
    is_plain = all(each.dtype in checkpoint.PLAIN for each in tensors)
    return _card(model, folder, known, sum(prod(each.shape) for each in tensors) if is_plain else None)


def _size_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(each.size_bytes for each in tensors)


def _of_hub(model: str) -> Card:
    """From the two small files that say what it is, and the sizes that the hub lists."""
    name = weights.hub_name(model)
    if name is None:
        raise ConfigError(model, "is neither a folder nor the name of a model on the hub", "Write it as Qwen/Qwen3-8B")
    hub.require(model)
    found = hub.find(name.hub_id, name.revision)
    size_bytes = sum(file.size_bytes for file in found.files if file.name.endswith(".safetensors"))
    known = {"hub_id": name.hub_id, "revision": found.revision, "licence": found.licence, "gated": found.gated}
    known["weight_bytes"] = size_bytes
    # The card goes to standard output, where nothing else may stand.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for file in found.files:
            if file.name in READ_FROM_HUB:
                hub.fetch(name.hub_id, found.revision, file, Path(folder), Bar())
        return _card(name.hub_id, Path(folder), known)


def _card(source: str, folder: Path, known: Mapping[str, Any], counted: int | None = None) -> Card:
    """The card of what is known from elsewhere, counted parameters too, and of the files in the folder. Raises ConfigError."""
    config = read_json(source, folder / "config.json")
    architecture.read(config, source)
    facts = {
        **known,
        "parameters": counted or parameters.count(config, known["weight_bytes"]),
        "licence": known["licence"] or "unknown",
        "revision": known["revision"] if hub_library.is_commit(known["revision"]) else None,
        "context_tokens": own_context.of(config).default_tokens,
        "sampling": _sampling(source, folder / "generation_config.json"),
        "tool_parser": None,
        "reasoning_parser": None,
        "images": "vision_config" in config,
        "config": config,
        "quirks": (),
        "unconfirmed": UNCONFIRMED,
        "sources": (f"config.json, generation_config.json and the sizes of the weights of {source}",),
    }
    try:
        return Card.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"has a {first['loc'][0]} that no card can hold ({yaml_source.message(first)})"
        raise ConfigError(source, problem, "Write the card by hand") from error


def _sampling(source: str, path: Path) -> dict[str, Any]:
    """What the model's makers recommend."""
    published: Mapping[str, Any] = read_json(source, path) if path.exists() else {}
    if published.get("do_sample") is False:
        return {"temperature": 0}
    return {key: value for key, value in published.items() if key in SAMPLING}
