"""Cards of known models: what is published of their weights, for a plan before there are any, and for their settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cappella.config import yaml_source
from cappella.types import Frozen, SamplingOptions


class Card(Frozen):
    """`config` is the part of the model's config.json that a plan needs; `unconfirmed` names facts without a source."""

    hub_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    licence: str
    gated: bool
    context_tokens: Annotated[int, Field(gt=0)]
    parameters: Annotated[int, Field(gt=0)]
    weight_bytes: Annotated[int, Field(gt=0)]
    sampling: SamplingOptions
    tool_parser: str | None
    reasoning_parser: str | None
    images: bool
    config: Mapping[str, Any]
    quirks: Sequence[str]
    unconfirmed: Sequence[str]
    sources: Sequence[str]


def load(path: Path) -> Card:
    """Raises ConfigError with the line and the key of a mistake."""
    return yaml_source.load(path, Card, "Name a file of model_configs/models")[1]
