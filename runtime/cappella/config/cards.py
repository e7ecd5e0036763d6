"""Model cards: published facts about weights, for planning before they are downloaded and for default settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cappella.config import yaml_source
from cappella.types import Frozen, SamplingOptions


class Card(Frozen):
    """`config` is the part of the model's config.json that planning needs; `unconfirmed` lists facts without a source.

    `draft_bytes` of the `weight_bytes` are a draft model in the checkpoint, which vLLM loads only to speculate with it,
    `encoder_bytes` an encoder of images with its projection, which it does not load for a model that reads texts only.
    """

    hub_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    licence: str
    gated: bool
    context_tokens: Annotated[int, Field(gt=0)]
    parameters: Annotated[int, Field(gt=0)]
    weight_bytes: Annotated[int, Field(gt=0)]
    draft_bytes: Annotated[int, Field(ge=0)] = 0
    encoder_bytes: Annotated[int, Field(ge=0)] = 0
    sampling: SamplingOptions
    tool_parser: str | None
    reasoning_parser: str | None
    images: bool
    config: Mapping[str, Any]
    quirks: Sequence[str]
    unconfirmed: Sequence[str]
    sources: Sequence[str]


SHIPPED = Path(__file__).with_name("model_cards")
"""One file for each model, by the name in its hub id in lower case."""


def shipped(hub_id: str) -> Path | None:
    """The card that Cappella has for a hub id, in any case; None if it has none."""
    path = SHIPPED / f"{hub_id.lower().rpartition('/')[2]}.yaml"
    return path if path.is_file() and load(path).hub_id.lower() == hub_id.lower() else None


def load(path: Path) -> Card:
    """Read a card. Raises ConfigError with the line and key of a mistake."""
    return yaml_source.load(path, Card, "Give the path of a card, or the hub id of one that Cappella has")[1]
