"""The Hugging Face hub: the files of a model at one commit, with resumable downloads."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cappella.bundle import contents
from cappella.bundle.file_copy import CHUNK_BYTES
from cappella.bundle.manifest import PARTIAL, check_path
from cappella.bundle.progress import Bar, step
from cappella.config.hub_library import is_commit, prepare_import
from cappella.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

RETRY_HINT = "Fix that and run it again: it continues where it stopped"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the hub: large ones have a `sha256`, small ones git's SHA-1 as `blob_id`."""

    name: str
    size_bytes: int
    sha256: str
    blob_id: str


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub at one commit, with the files that an engine reads."""

    revision: str
    licence: str
    gated: bool
    files: tuple[Remote, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def require(place: str) -> None:
    """Raises ConfigError if huggingface_hub is not installed."""
    prepare_import()
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        problem = "the package huggingface_hub is not installed"
        raise ConfigError(place, problem, "pip install 'cappella[pull]'") from error


def find(hub_id: str, revision: str | None) -> HubModel:
    """Find a model, at its newest commit if no revision is given. Raises ConfigError."""
    from huggingface_hub import HfApi

    with _config_errors(hub_id, revision):
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        licence = info.card_data.get("license") if info.card_data else None
        remotes = [
            Remote(check_path(each.rfilename), each.size or 0, each.lfs.sha256 if each.lfs else "", each.blob_id or "")
            for each in info.siblings or []
            if contents.is_wanted(each.rfilename) and "/" not in each.rfilename
        ]
        if is_commit(revision) and info.sha != revision:
            raise ValueError(f"the hub returned commit {info.sha}")
    return HubModel(info.sha or "", str(licence or ""), bool(info.gated), tuple(_without_doubles(remotes)))


def fetch(hub_id: str, revision: str, file: Remote, folder: Path, bar: Bar) -> None:
    """Download a file; it appears only when it is complete and its hash matches. Raises ConfigError."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    target = folder / file.name
    if target.is_file() and target.stat().st_size == file.size_bytes:
        bar.skip(file.size_bytes)
        return
    partial = target.with_name(file.name + PARTIAL)
    url = hf_hub_url(hub_id, file.name, revision=revision)
    with _config_errors(hub_id, revision), io.BufferedWriter(_Counted(partial, bar)) as out:
        bar.skip(out.tell())
        # A compressed download could not be resumed in the middle.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        http_get(url, out, resume_size=out.tell(), headers=headers, expected_size=file.size_bytes)
    if not _is_right(partial, file):
        partial.unlink()
        raise ConfigError(f"{hub_id}: {file.name}", "its hash differs from the hub's", RETRY_HINT)
    partial.replace(target)


class _Counted(io.FileIO):
    """A file opened for appending that reports writes and truncations to a bar."""

    def __init__(self, path: Path, bar: Bar) -> None:
        super().__init__(path, "ab")
        self._bar = bar

    def write(self, data: "ReadableBuffer", /) -> int:
        written = super().write(data)
        self._bar.add(written)
        return written

    def truncate(self, size: int | None = None, /) -> int:
        before = os.fstat(self.fileno()).st_size
        after = super().truncate(size)
        self._bar.skip(after - before)
        return after


def _without_doubles(files: list[Remote]) -> Iterator[Remote]:
    """Drop the second copy of the weights in Mistral's repositories, in their own format."""
    has_common = any(file.name.startswith("model") and file.name.endswith(".safetensors") for file in files)
    return (file for file in files if not (has_common and file.name.startswith("consolidated")))


def _is_right(path: Path, file: Remote) -> bool:
    """Whether a file's hash matches: SHA-256, or git's blob hash where the hub has none."""
    hasher = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content, step(f"checking {file.name}", file.size_bytes) as bar:
        while chunk := content.read(CHUNK_BYTES):
            hasher.update(chunk)
            bar.add(len(chunk))
    return hasher.hexdigest() == (file.sha256 or file.blob_id)


@contextmanager
def _config_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the hub and the network into ConfigError."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        hint = f"Accept its licence on https://huggingface.co/{hub_id}, then use `hf auth login` or HF_TOKEN"
        raise ConfigError(hub_id, "is gated, and this account has no access", hint) from error
    except RevisionNotFoundError as error:
        raise ConfigError(hub_id, f"has no revision {revision}", "Name a branch, a tag or a commit of it") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            hub_id, "is not on the hub, or is private", "Check the name, or run `hf auth login`"
        ) from error
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise ConfigError(hub_id, f"cannot be downloaded ({str(error).splitlines()[0]})", RETRY_HINT) from error
