"""Images that a request names in the one folder from which they may come: put into it as data, before anything reads it."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cappella.errors import RequestError

# By their first bytes: what a name says need not be so.
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


def put_in(wire: dict[str, Any], folder: Path | None, most_bytes: int) -> bool:
    """Replace every `file:` address by its image, `most_bytes` of them in all; returns whether there were any.

    Raises RequestError for one outside the folder or with no image; without a folder they are left for others to refuse.
    """
    found = list(_addressed([wire.get("messages"), wire.get("input")])) if folder is not None else []
    for holder, key in found:
        assert folder is not None
        data = _image(folder, holder[key], most_bytes)
        most_bytes -= len(data)
        holder[key] = f"data:image/{_kind(data)};base64,{b64encode(data).decode()}"
    return bool(found)


def _addressed(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object with such an address, and the key."""
    if isinstance(value, dict):
        yield from ((value, key) for key in ("url", "image_url") if str(value.get(key, "")).startswith("file:"))
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _addressed(each)


def _image(folder: Path, address: str, most_bytes: int) -> bytes:
    # Nobody is to learn from an error what there is outside.
    refusal = RequestError(
        f"{address[:80]!r} is no image in the folder that this server takes images from.", "messages"
    )
    try:
        path = Path(unquote(urlsplit(address).path)).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise refusal
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        raise refusal from error
    if _kind(data) is None:
        raise refusal
    if len(data) > most_bytes:
        raise RequestError("The images that the request names are too large.", "messages", "body_too_large")
    return data


def _kind(data: bytes) -> str | None:
    return next((kind for mark, kind in KINDS.items() if data.startswith(mark)), None)
