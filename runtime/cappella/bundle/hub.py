"""Hugging Face's hub: what it has of a model at one commit, and its files, each on from where it stopped."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cappella.bundle import contents
from cappella.bundle.bar import Bar
from cappella.bundle.file_copy import CHUNK_BYTES
from cappella.bundle.manifest import PARTIAL, check_path
from cappella.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

AGAIN = "Fix that and run it again: it continues where it stopped"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the hub; `sha256` is that of a large one, `blob_id` git's SHA-1 of a small one."""

    name: str
    size_bytes: int
    sha256: str
    blob_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the hub says of a model at one commit; of its files, those that an engine reads."""

    revision: str
    licence: str
    gated: bool
    files: tuple[Remote, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def require(place: Path) -> None:
    """Raises ConfigError where huggingface_hub is not installed. Nothing is told to its makers."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # They know one file at a time; ours knows all of a model's.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        problem = "pulling needs the package huggingface_hub, which is not here"
        raise ConfigError(str(place), problem, "pip install 'cappella[pull]'") from error


def find(hub_id: str, revision: str | None) -> Found:
    """Without a revision, the newest. Raises ConfigError."""
    from huggingface_hub import HfApi

    with _one_line(hub_id, revision):
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        said = info.card_data.get("license") if info.card_data else None
        remotes = [
            Remote(check_path(each.rfilename), each.size or 0, each.lfs.sha256 if each.lfs else "", each.blob_id or "")
            for each in info.siblings or []
            if contents.is_wanted(each.rfilename) and "/" not in each.rfilename
        ]
        if revision and info.sha != revision:
            raise ValueError(f"it answers with commit {info.sha}")
    return Found(info.sha or "", str(said or ""), bool(info.gated), tuple(_without_doubles(remotes)))


def fetch(hub_id: str, revision: str, file: Remote, folder: Path, bar: Bar) -> None:
    """Put a file there once all of it has come and its hash is right. Raises ConfigError."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    target = folder / file.name
    if target.is_file() and target.stat().st_size == file.size_bytes:
        bar.skip(file.size_bytes)
        return
    partial = target.with_name(file.name + PARTIAL)
    url = hf_hub_url(hub_id, file.name, revision=revision)
    with _one_line(hub_id, revision), io.BufferedWriter(_Counted(partial, bar)) as out:
        bar.skip(out.tell())
        # A download of text may be compressed, and then it cannot go on in the middle.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        http_get(url, out, resume_size=out.tell(), headers=headers, expected_size=file.size_bytes)
    if not _is_right(partial, file):
        partial.unlink()
        raise ConfigError(f"{hub_id}: {file.name}", "what came has another hash than the hub says", AGAIN)
    partial.replace(target)


class _Counted(io.FileIO):
    """A file that goes on behind what it holds; a bar is told of all that is written, and of what is taken back."""

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
    """Mistral's repositories have the same weights twice: in one file of its own form, and as everybody's."""
    has_common = any(file.name.startswith("model") and file.name.endswith(".safetensors") for file in files)
    return (file for file in files if not (has_common and file.name.startswith("consolidated")))


def _is_right(path: Path, file: Remote) -> bool:
    """By git's hash of a blob where the hub has no SHA-256."""
    hasher = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content, Bar(f"checking {file.name}", file.size_bytes) as bar:
        while chunk := content.read(CHUNK_BYTES):
            hasher.update(chunk)
            bar.add(len(chunk))
    return hasher.hexdigest() == (file.sha256 or file.blob_id)


@contextmanager
def _one_line(hub_id: str, revision: str | None) -> Iterator[None]:
    """What the hub or the network refuses, as a ConfigError."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        hint = f"Accept its licence on https://huggingface.co/{hub_id}, then `hf auth login` or HF_TOKEN"
        raise ConfigError(hub_id, "is gated, and you are not let in", hint) from error
    except RevisionNotFoundError as error:
        raise ConfigError(hub_id, f"has no revision {revision}", "Fix the card") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(hub_id, "is not on the hub, or is private", "Fix the card, or run `hf auth login`") from error
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise ConfigError(hub_id, f"cannot be fetched ({str(error).splitlines()[0]})", AGAIN) from error
