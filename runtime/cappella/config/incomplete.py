"""Whether all files of a folder of weights are there: a download that broke off is never taken for the whole model."""

import json
from pathlib import Path

from cappella.config.hub_library import prepare_import

PULLING = ".pulling.json"
"""The record of a `cappella pull` that has not ended; it becomes `.pulled.json`."""
PARTIAL = ".partial"
INDEX = "model.safetensors.index.json"
NEEDED = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
"""Without them vLLM serves another model than the hub has, or none."""


def reason(folder: Path) -> str | None:
    """Why this is not the whole model; None if nothing is known to be missing."""
    if (folder / PULLING).exists() or any(folder.glob(f"*{PARTIAL}")):
        return "`cappella pull` has not fetched all of it"
    if dangling := next((each for each in sorted(folder.glob("*")) if each.is_symlink() and not each.exists()), None):
        return f"{dangling.name} links to a file that is missing"
    if shard := _missing_shard(folder):
        return f"{INDEX} names {shard}, which is missing"
    missing = _missing_by_tree(folder)
    if missing:
        return f"{missing[0]} has not been fetched"
    unfinished = sorted((folder.parents[1] / "blobs").glob("*.incomplete")) if _is_snapshot(folder) else []
    if unfinished and missing is None:
        return f"the download of {unfinished[0]} broke off"
    return None


def _is_snapshot(folder: Path) -> bool:
    return (
        len(folder.parents) > 2 and folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    )


def _missing_shard(folder: Path) -> str | None:
    """A file that the index names and that is not there. An index that cannot be read is another mistake."""
    try:
        named = json.loads((folder / INDEX).read_text()).get("weight_map", {}).values()
        return next((str(name) for name in sorted(set(named)) if not (folder / str(name)).is_file()), None)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _missing_by_tree(folder: Path) -> list[str] | None:
    """The needed files that the hub lists for a snapshot and that it lacks; None if there is no such list."""
    if not _is_snapshot(folder):
        return None
    try:
        prepare_import()
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return None
    hub_id = folder.parents[1].name.removeprefix("models--").replace("--", "/")
    try:
        tree = get_cached_repo_tree(hub_id, revision=folder.name, cache_dir=folder.parents[2])
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        return None
    listed = {each.path for each in tree}
    weights = (
        {INDEX} if INDEX in listed else {name for name in listed if name.endswith(".safetensors") and "/" not in name}
    )
    common = {name for name in weights if not name.startswith("consolidated")}
    return sorted(name for name in (common or weights) | (set(NEEDED) & listed) if not (folder / name).is_file())
