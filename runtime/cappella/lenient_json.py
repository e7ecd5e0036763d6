"""JSON in which halves of characters become U+FFFD."""

import re
from typing import Any

import orjson


def loads(text: bytes) -> tuple[Any, bytes]:
    """The value, and bytes that are that value. Raises orjson.JSONDecodeError."""
    try:
        return orjson.loads(text), text
    except orjson.JSONDecodeError as error:
        if "surrogate" not in str(error):
            raise
    mended = _SURROGATES.sub(_mended, text)
    return orjson.loads(mended), mended


# A client that cuts a text inside an emoji keeps half of it, in this turn and in all later ones.
_SURROGATES = re.compile(
    rb"(?:\\\\)+"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def _mended(match: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if match.group(1) else match.group()
