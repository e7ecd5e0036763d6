"""Where a folder of weights came from: as recorded by `pull`, or as its card claims."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cappella.bundle.manifest import write_atomically
from cappella.config import cards, weights

NAME = weights.PULLED


@dataclass(frozen=True, slots=True)
class Origin:
    """`revision` is empty unless `pull` recorded it; `licence` is empty if unknown."""

    hub_id: str = ""
    revision: str = ""
    licence: str = ""


def write(path: Path, origin: Origin) -> None:
    write_atomically(path, json.dumps(asdict(origin)).encode())


def read(path: Path) -> Origin | None:
    """The record of `pull`; None without one."""
    try:
        return Origin(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def of(folder: Path, card: Path | None) -> Origin:
    """The origin of a folder. Raises ConfigError for an invalid card."""
    if found := read(folder / NAME):
        return found
    if card is None:
        return Origin()
    loaded = cards.load(card)
    return Origin(loaded.hub_id, "", loaded.licence)
