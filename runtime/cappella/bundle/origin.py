"""Where a folder of weights came from: what `pull` wrote down, or else what its card claims."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cappella.bundle.manifest import write_atomically
from cappella.config import cards

NAME = ".pulled.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """`revision` is empty unless `pull` fetched exactly that; `licence` is empty where nobody said."""

    hub_id: str = ""
    revision: str = ""
    licence: str = ""


def write(path: Path, origin: Origin) -> None:
    write_atomically(path, json.dumps(asdict(origin)).encode())


def read(path: Path) -> Origin | None:
    """None where `pull` did not write it."""
    try:
        return Origin(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def of(folder: Path, card: Path | None) -> Origin:
    """Raises ConfigError for a card that is none."""
    if found := read(folder / NAME):
        return found
    if card is None:
        return Origin()
    said = cards.load(card)
    return Origin(said.hub_id, "", said.licence)
