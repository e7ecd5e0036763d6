"""Replaces `file:` URLs of images in a request by their data; only images in one configured folder are allowed."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cappella.errors import RequestError

# By their first bytes: a file name may be wrong.
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


def inline_files(wire: dict[str, Any], folder: Path | None, max_bytes: int) -> bool:
    """Replace each `file:` URL by its image, at most `max_bytes` in all; returns whether there were any.

    Raises RequestError for a URL that is no image in the folder. Without a folder nothing is replaced: the request's
    validation refuses such URLs.
    """
    urls = list(_file_urls([wire.get("messages"), wire.get("input")])) if folder is not None else []
    for holder, key in urls:
        assert folder is not None
        data = _image(folder, holder[key], max_bytes)
        max_bytes -= len(data)
        holder[key] = f"data:image/{_kind(data)};base64,{b64encode(data).decode()}"
    return bool(urls)


def _file_urls(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object with a `file:` URL, and its key."""
    if isinstance(value, dict):
        yield from ((value, key) for key in ("url", "image_url") if str(value.get(key, "")).startswith("file:"))
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _file_urls(each)


def _image(folder: Path, address: str, max_bytes: int) -> bytes:
    # One message for all cases: an error must not reveal what exists outside the folder.
    refusal = RequestError(
        f"{address[:80]!r} is no image in the folder server.image_folder of this server.", "messages"
    )
    try:
        path = Path(unquote(urlsplit(address).path)).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise refusal
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise refusal from error
    if _kind(data) is None:
        raise refusal
    if len(data) > max_bytes:
        raise RequestError("The images of the request are too large.", "messages", "body_too_large")
    return data


def _kind(data: bytes) -> str | None:
    return next((kind for mark, kind in KINDS.items() if data.startswith(mark)), None)
