"""The bytes of a body as JSON: compression is undone within the limit, halves of characters become U+FFFD."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from cappella import lenient_json
from cappella.errors import RequestError

MAX_ZSTD_WINDOW_BYTES = 8 << 20
"""The window that every decoder must have; a larger one is memory that a few bytes would claim."""


def _zlib(wbits: int) -> Callable[[bytes, int], bytes]:
    def decode(body: bytes, most: int) -> bytes:
        decoder = zlib.decompressobj(wbits)
        data = decoder.decompress(body, most)
        if len(data) < most and not decoder.eof:
            raise zlib.error("it ends too early")
        return data

    return decode


def _zstd(body: bytes, most: int) -> bytes:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
    try:
        with decoder.stream_reader(body) as reader:
            data: bytes = reader.read(most)
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error
    return data


DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": _zlib(16 + zlib.MAX_WBITS),
    "x-gzip": _zlib(16 + zlib.MAX_WBITS),
    "deflate": _zlib(zlib.MAX_WBITS),
    "zstd": _zstd,
}
"""At most so many bytes of what was compressed, by Content-Encoding."""


def decoder_of(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """What undoes a Content-Encoding; None for none. Raises RequestError for one that is not known here."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in DECODERS:
        message = f"The Content-Encoding is {name[:100]}: send gzip, deflate, zstd or none."
        raise RequestError(message, code="unsupported_media_type")
    return DECODERS[name]


def decoded(decode: Callable[[bytes, int], bytes], body: bytes, limit_bytes: int) -> bytes:
    """The body as it was before. Raises RequestError if that is larger than the limit, or cannot be read."""
    try:
        data = decode(body, limit_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"The body is not what its Content-Encoding says: {error}.", code="invalid_json") from error
    if len(data) > limit_bytes:
        raise RequestError(f"The body is larger than {limit_bytes} bytes.", code="body_too_large")
    return data


def json_object(body: bytes) -> tuple[dict[str, Any], bytes]:
    """The body as a JSON object, and as bytes that are that object. Raises RequestError for anything else."""
    try:
        value, body = lenient_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return value, body
