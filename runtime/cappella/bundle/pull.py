"""`cappella pull`: download one model from the hub, or the weights that a config names."""

from dataclasses import dataclass
from pathlib import Path

from cappella.bundle import contents, file_copy, hub, origin
from cappella.bundle.hub import RETRY_HINT, HubModel
from cappella.bundle.origin import Origin
from cappella.bundle.progress import human, step
from cappella.config import Config, cards, hub_library, incomplete, load, weights
from cappella.config.weights import HubName
from cappella.errors import ConfigError

BEGUN = incomplete.PULLING


@dataclass(frozen=True, slots=True)
class Source:
    """What a folder is pulled from; `place` is where that is written, `licence` the one that the card claims."""

    hub_id: str
    revision: str | None
    place: str
    licence: str = ""


def pull(path: Path, unpinned: bool) -> None:
    """Download what is missing. Raises ConfigError, before any download if a revision is not pinned."""
    config = load.load(path)
    known = sources(path, config)
    for source in known.values():
        if source.revision is None and not unpinned:
            problem = f"pins no revision, so that {source.hub_id} may change"
            raise ConfigError(source.place, problem, "Pin a commit, or use --unpinned")
    hub.require(str(path))
    for name, folder in contents.folders(config).items():
        if hub_library.is_snapshot(folder) and not incomplete.reason(folder):
            print(f"{name}: is complete in {folder}")
        elif name in known:
            # The Hugging Face cache is huggingface_hub's to write.
            _pull(name, HubName(known[name].hub_id).folder if hub_library.is_snapshot(folder) else folder, known[name])
        elif not folder.is_dir():
            problem = "there is no such folder, and no card names its source"
            raise ConfigError(f"{name}: {folder}", problem, f"Set models.{name}.card, or copy it there")
        else:
            print(f"{name}: has no card; {folder} is left unchanged")


def pull_model(text: str, revision: str | None, to: Path | None) -> None:
    """Download one model, given as `owner/name` or `owner/name@revision`, unless it is here. Raises ConfigError."""
    name = weights.hub_name(text)
    if name is None:
        raise ConfigError(
            text, "is neither a config file nor the name of a model on the hub", "Write it as Qwen/Qwen3-8B"
        )
    if revision and name.revision not in (None, revision):
        raise ConfigError(f"--revision {revision}", f"{text} names another one", "Name one of them")
    name = HubName(name.hub_id, revision or name.revision)
    if to is None and (here := weights.found(name)) and here != name.folder and not incomplete.reason(here):
        print(f"{name}: is complete in {here}")
        return
    hub.require(text)
    card = cards.shipped(name.hub_id)
    licence = cards.load(card).licence if card else ""
    _pull(str(name), to or name.folder, Source(name.hub_id, name.revision, text, licence))


def sources(path: Path, config: Config) -> dict[str, Source]:
    """Where each model's weights come from: as their own hub id says, or the card of a folder.

    A card of another model tells what somebody's own weights are like, and not where they are.
    """
    out: dict[str, Source] = {}
    for name, model in config.local.items():
        named = weights.named_by(model.weights)
        card = cards.load(model.card) if model.card else None
        if card and (named is None or named.hub_id.lower() == card.hub_id.lower()):
            revision = named.revision if named and named.revision else card.revision
            out[name] = Source(card.hub_id, revision, f"{model.card}: revision", card.licence)
        elif named:
            out[name] = Source(named.hub_id, named.revision, f"{path}: models.{name}.weights: {named}")
    return out


def _pull(name: str, folder: Path, source: Source) -> None:
    with file_copy.disk_errors(folder, RETRY_HINT):
        complete = origin.read(folder / origin.NAME)
        begun = complete or origin.read(folder / BEGUN)
        if begun is None and folder.is_dir() and any(folder.iterdir()):
            print(f"{name}: {folder} was not made by `pull` and is left unchanged")
            return
        _require_same(folder, source, begun)
        if complete:
            print(f"{name}: {source.hub_id} at {complete.revision[:12]} is complete")
            return
        hub_model = hub.find(source.hub_id, begun.revision if begun else source.revision)
        _show(name, source, hub_model)
        _fetch(folder, Origin(source.hub_id, hub_model.revision, hub_model.licence or source.licence), hub_model)
    print(f"{name}: is in {folder}, at revision {hub_model.revision}")
    if source.revision is None and source.place.endswith(": revision"):
        print(f"{name}: to pin this version, write it into {source.place.removesuffix(': revision')}")


def _require_same(folder: Path, source: Source, begun: Origin | None) -> None:
    """Raises ConfigError for a folder with another model, or another commit of it."""
    commit = source.revision if hub_library.is_commit(source.revision) else None
    if begun and (begun.hub_id != source.hub_id or begun.revision != (commit or begun.revision)):
        problem = f"has {begun.hub_id} at {begun.revision}, but {source.hub_id} at {source.revision} is wanted"
        raise ConfigError(str(folder), problem, "Move it away, or use another folder")


def _show(name: str, source: Source, hub_model: HubModel) -> None:
    """Print what will be downloaded, and its licence."""
    print(
        f"{name}: {source.hub_id} at {hub_model.revision[:12]}, {len(hub_model.files)} files, {human(hub_model.size_bytes)}"
    )
    licence = hub_model.licence or "unknown to the hub"
    other = f" (the card says {source.licence})" if source.licence and hub_model.licence != source.licence else ""
    texts = ", ".join(file.name for file in hub_model.files if contents.is_licence(file.name))
    gated = "gated: its owner requires accepting the terms" if hub_model.gated else "not gated"
    print(
        f"  licence: {licence}{other}; {gated}; {f'licence text: {texts}' if texts else 'no licence text'}", flush=True
    )


def _fetch(folder: Path, where: Origin, hub_model: HubModel) -> None:
    """Download all files; the record that marks the folder as complete is written last."""
    if not any(file.name.endswith(".safetensors") for file in hub_model.files):
        problem = "has no .safetensors file: pickles and GGUF are not loaded"
        raise ConfigError(where.hub_id, problem, "Use a model whose weights are safetensors")
    begun = folder / BEGUN
    origin.write(begun, where)
    remaining = [file for file in hub_model.files if not (folder / file.name).exists()]
    file_copy.require_space(folder, sum(file.size_bytes for file in remaining))
    with step("pulling", hub_model.size_bytes) as bar:
        for file in hub_model.files:
            hub.fetch(where.hub_id, where.revision, file, folder, bar)
    begun.replace(folder / origin.NAME)
