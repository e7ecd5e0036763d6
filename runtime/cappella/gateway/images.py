"""Replaces `file:` URLs of images in a request by their data; only images in one configured folder are allowed."""

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from cappella.errors import RequestError

# By their first bytes: a file name may be wrong.
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


async def with_files(body: bytes, wire: dict[str, Any], folder: Path | None, max_bytes: int) -> bytes:
    """The body with each `file:` URL replaced by its image, at most `max_bytes` in all; `wire`, its JSON, is changed too.

    Raises RequestError for a URL that is no image in the folder. Without a folder nothing is replaced: the request's
    validation refuses such URLs.
    """
    return body if folder is None else await asyncio.to_thread(_with_files, body, wire, folder, max_bytes)


def _with_files(body: bytes, wire: dict[str, Any], folder: Path, max_bytes: int) -> bytes:
    urls = list(_file_urls([wire.get("messages"), wire.get("input")]))
    for holder, key in urls:
        data = _image(folder, holder[key], max_bytes)
        max_bytes -= len(data)
        holder[key] = f"data:image/{_kind(data)};base64,{b64encode(data).decode()}"
    return orjson.dumps(wire) if urls else body


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
