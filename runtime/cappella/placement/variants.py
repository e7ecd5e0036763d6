"""Other weights that could take a model's place, among those whose cards Cappella has: quantised ones, and smaller ones."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cappella.config import Model, cards, weights
from cappella.config.cards import Card

QUANTISED = ("FP8", "AWQ", "GPTQ", "Int4", "NVFP4")


def published_id(model: Model) -> str | None:
    """The hub id of its weights; None for weights of the user's own."""
    if name := weights.named_by(model.weights):
        return name.hub_id
    return cards.load(model.card).hub_id if model.card else None


def is_found_by_name(model: Model) -> bool:
    """Whether the config names its weights by their hub id, and not by a folder of the user's own."""
    return weights.named_by(model.weights) is not None


def quantised(hub_id: str) -> list[Card]:
    """The same model with fewer bits, the largest first."""
    name = hub_id.rpartition("/")[2].lower()
    endings = [f"{name}-{ending.lower()}" for ending in QUANTISED]
    found = [_card(path) for path in cards.SHIPPED.glob(f"{name}-*.yaml") if path.stem in endings]
    return sorted(
        (card for card in found if _maker(card.hub_id) == _maker(hub_id)), key=lambda card: -card.weight_bytes
    )


def smaller(hub_id: str) -> Iterator[Card]:
    """Smaller models of its family, by the same maker and in the same precision, the largest first."""
    own = cards.shipped(hub_id)
    if own is None:
        return
    card, family = _card(own), own.stem.partition("-")[0]
    kin = [_card(path) for path in cards.SHIPPED.glob(f"{family}-*.yaml")]
    for each in sorted(kin, key=lambda other: -other.weight_bytes):
        is_alike = _maker(each.hub_id) == _maker(hub_id) and _method(each) == _method(card)
        if is_alike and each.parameters < card.parameters:
            yield each


def replaced(model: Model, card: Card) -> Model:
    """The model with these weights, wherever they are, or will be."""
    at = weights.locate(card.hub_id, Path())
    return model.model_copy(update={"weights": at, "card": cards.shipped(card.hub_id)})


@cache
def _card(path: Path) -> Card:
    return cards.load(path)


def _maker(hub_id: str) -> str:
    return hub_id.partition("/")[0].lower()


def _method(card: Card) -> object:
    return (card.config.get("quantization_config") or {}).get("quant_method")
