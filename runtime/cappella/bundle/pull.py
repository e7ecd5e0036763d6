"""`cappella pull`: download the weights that a config's cards name from the hub."""

from pathlib import Path

from cappella.bundle import contents, file_copy, hub, origin
from cappella.bundle.hub import RETRY_HINT, HubModel
from cappella.bundle.origin import Origin
from cappella.bundle.progress import human, step
from cappella.config import Config, cards, load
from cappella.config.cards import Card
from cappella.errors import ConfigError

BEGUN = ".pulling.json"


def pull(path: Path, unpinned: bool) -> None:
    """Download what is missing. Raises ConfigError, before any download if a card pins no revision."""
    config = load.load(path)
    known = _cards(config)
    for card_path, card in known.values():
        if card.revision is None and not unpinned:
            problem = f"pins no revision, so that {card.hub_id} may change"
            raise ConfigError(f"{card_path}: revision", problem, "Pin a commit, or use --unpinned")
    hub.require(path)
    for name, folder in contents.folders(config).items():
        with file_copy.disk_errors(folder, RETRY_HINT):
            if name in known:
                _pull(name, folder, *known[name])
            elif not folder.is_dir():
                problem = "there is no such folder, and no card names its source"
                raise ConfigError(f"{name}: {folder}", problem, f"Set models.{name}.card, or copy it there")
            else:
                print(f"{name}: has no card; {folder} is left unchanged")


def _cards(config: Config) -> dict[str, tuple[Path, Card]]:
    return {name: (model.card, cards.load(model.card)) for name, model in config.local.items() if model.card}


def _pull(name: str, folder: Path, card_path: Path, card: Card) -> None:
    complete = origin.read(folder / origin.NAME)
    begun = complete or origin.read(folder / BEGUN)
    if begun is None and folder.is_dir() and any(folder.iterdir()):
        print(f"{name}: {folder} was not made by `pull` and is left unchanged")
        return
    if begun and (begun.hub_id != card.hub_id or begun.revision != (card.revision or begun.revision)):
        problem = f"has {begun.hub_id} at {begun.revision}, but the card names {card.hub_id} at {card.revision}"
        raise ConfigError(f"models.{name}.weights: {folder}", problem, "Move it away, or use another folder")
    if complete:
        print(f"{name}: {card.hub_id} at {complete.revision[:12]} is complete")
        return
    hub_model = hub.find(card.hub_id, begun.revision if begun else card.revision)
    _show(name, card, hub_model)
    _fetch(folder, Origin(card.hub_id, hub_model.revision, hub_model.licence or card.licence), hub_model)
    if card.revision is None:
        print(f"{name}: to pin this version, write revision: {hub_model.revision} into {card_path}")


def _show(name: str, card: Card, hub_model: HubModel) -> None:
    """Print what will be downloaded, and its licence."""
    print(
        f"{name}: {card.hub_id} at {hub_model.revision[:12]}, {len(hub_model.files)} files, {human(hub_model.size_bytes)}"
    )
    licence = hub_model.licence or "unknown to the hub"
    other = "" if hub_model.licence == card.licence else f" (the card says {card.licence})"
    texts = ", ".join(file.name for file in hub_model.files if contents.is_licence(file.name))
    gated = "gated: its owner requires accepting the terms" if hub_model.gated else "not gated"
    print(
        f"  licence: {licence}{other}; {gated}; {f'licence text: {texts}' if texts else 'no licence text'}", flush=True
    )


def _fetch(folder: Path, where: Origin, hub_model: HubModel) -> None:
    """Download all files; the record that marks the folder as complete is written last."""
    if not any(file.name.endswith(".safetensors") for file in hub_model.files):
        raise ConfigError(where.hub_id, "has no .safetensors file", "Use a model whose weights are safetensors")
    begun = folder / BEGUN
    origin.write(begun, where)
    remaining = [file for file in hub_model.files if not (folder / file.name).exists()]
    file_copy.require_space(folder, sum(file.size_bytes for file in remaining))
    with step("pulling", hub_model.size_bytes) as bar:
        for file in hub_model.files:
            hub.fetch(where.hub_id, where.revision, file, folder, bar)
    begun.replace(folder / origin.NAME)
