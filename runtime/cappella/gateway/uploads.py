"""Receives what is too large for memory: it is handed on piece by piece as it arrives, at a pace that is not too slow."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from cappella.errors import RequestError
from cappella.gateway.body_encoding import decoder_of
from cappella.gateway.request import MIN_BYTES_PER_S, ClientGone
from cappella.threads import off_loop_if_large

FORM_TYPE = "multipart/form-data"
FILE = "file"
MAX_FORM_BYTES = 64 << 10
"""All of a form but its file, with the headers of its parts."""
PART_BYTES = 100
"""What a part counts beside that."""
FORM_WORK = 25
"""A byte of a form is as much work as so many characters of a text: headers are parsed one by one."""
MAX_NAME_CHARS = 255


async def arriving(
    request: Request, limit_bytes: int, timeout_s: float, take: Callable[[bytes], Awaitable[None]]
) -> None:
    """Hand the body on to `take`. Raises RequestError if it is larger than `limit_bytes`, or comes too slowly.

    Its sender has `timeout_s`, and more with what has arrived. Raises ClientGone if the client disconnects.
    """
    if decoder_of(request.headers.get("content-encoding", "")):
        raise RequestError("Send this body without a Content-Encoding.", code="unsupported_media_type")
    size = 0
    try:
        async with asyncio.timeout(timeout_s) as limit:
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise RequestError(f"The body is larger than {limit_bytes} bytes.", code="body_too_large")
                await take(part)
                limit.reschedule((limit.when() or 0) + len(part) / MIN_BYTES_PER_S)
    except ClientDisconnect as error:
        raise ClientGone from error
    except TimeoutError as error:
        pace = f"{timeout_s:g} s, and a second more for each {MIN_BYTES_PER_S >> 10} KiB"
        raise RequestError(f"The body was incomplete after {pace}.", code="body_too_slow") from error


@dataclass(slots=True)
class Form:
    """The fields of a form with one file, and the name of that, which is a name and no path."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


async def receive_form(
    request: Request, limit_bytes: int, timeout_s: float, take: Callable[[bytes], Awaitable[None]]
) -> Form:
    """The form; the content of its file goes to `take`. Raises RequestError and ClientGone."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind.decode("latin-1") != FORM_TYPE or not boundary:
        shown = kind.decode("latin-1")[:100] or "missing"
        message = f"The Content-Type is {shown}: send the file as {FORM_TYPE}, with a boundary."
        raise RequestError(message, code="unsupported_media_type")
    reader = _FormReader(boundary)

    async def parse(part: bytes) -> None:
        await off_loop_if_large(FORM_WORK * len(part), reader.read, part)
        if data := reader.taken():
            await take(data)

    await arriving(request, limit_bytes + MAX_FORM_BYTES, timeout_s, parse)
    return reader.form()


class _FormReader:
    """Parses a form as it arrives. Raises RequestError for what is none, or has more than one file."""

    def __init__(self, boundary: bytes) -> None:
        self._form = Form()
        self._file: list[bytes] = []
        self._name = ""
        self._is_file = self._has_ended = False
        self._header = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field = bytearray()
        self._form_bytes = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _broken(error) from error

    def read(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(error) from error

    def taken(self) -> bytes:
        """What has come of the file since the last call."""
        data, self._file = b"".join(self._file), []
        return data

    def form(self) -> Form:
        """The whole form, once all of it has been read."""
        if not self._has_ended:
            raise RequestError("The form ends too early: its last boundary is missing.")
        if self._form.filename is None:
            raise RequestError("file is missing: send the file in a field of this name.", FILE)
        return self._form

    def _on_part(self) -> None:
        self._headers.clear()
        self._count(PART_BYTES)

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == FILE
        if not self._is_file:
            return
        if self._form.filename is not None:
            raise RequestError("The form has more than one file: send each in a request of its own.", FILE)
        self._form.filename = _plain_name(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.append(data[start:end])
            return
        self._count(end - start)
        self._field += data[start:end]

    def _on_part_end(self) -> None:
        if not self._is_file:
            self._form.fields[self._name] = self._field.decode("utf-8", "replace")
            self._field.clear()

    def _count(self, size_bytes: int) -> None:
        self._form_bytes += size_bytes
        if self._form_bytes > MAX_FORM_BYTES:
            raise RequestError(f"The fields are larger than {MAX_FORM_BYTES} bytes.", code="body_too_large")

    def _on_end(self) -> None:
        self._has_ended = True


def _plain_name(name: str) -> str:
    """The last part of a path, of any system; the name is only shown, and no file gets it."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(each for each in last if each.isprintable())[:MAX_NAME_CHARS] or "file"


def _broken(error: Exception) -> RequestError:
    return RequestError(f"The form cannot be read: {error}.")
