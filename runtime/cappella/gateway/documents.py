"""`POST /api/documents`: the text of a PDF or DOCX file, for pages and clients that cannot read these themselves.

Nothing of a document is kept. Each is read by `tools/documents/reader.py` in a process with limits on memory, CPU and time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.errors import Overloaded, RequestError
from cappella.gateway.body_memory import BodyMemory, HeldBody
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.reply_types import DocumentText
from cappella.gateway.request import caller, read, unless_gone
from cappella.gateway.state import GatewayState
from cappella.tools.documents import reading
from cappella.tools.documents.reader import BROKEN, ENCRYPTED, TOO_COMPLEX
from cappella.tools.documents.reading import ReadingLimits
from cappella.types import Json

PATH = "/api/documents"
MEDIA_TYPE = "application/octet-stream"
"""What the bytes are, they say themselves. Browsers let pages of other origins post this type only after a preflight."""
_PROBLEMS = {
    BROKEN: "The document cannot be read: it is damaged, or neither PDF nor DOCX.",
    ENCRYPTED: "The document is encrypted: save it without a password.",
    TOO_COMPLEX: "The document takes too much time or memory to read: split it, or save it in a simpler form.",
}
_RETRY_AFTER_S = 5

logger = logging.getLogger("cappella")


@dataclass(frozen=True, slots=True)
class DocumentLimits(ReadingLimits):
    """What is read of a document, what that may cost, and how many are read at once."""

    at_once: int = 2
    waiting: int = 8
    waiting_bytes: int = 128 << 20
    """Memory of its own: documents that wait keep no other request out."""


def create_router(current: Callable[[], GatewayState], limits: DocumentLimits = DocumentLimits()) -> PlainRoutes:
    router, readers = PlainRoutes(), _Readers(limits)

    @router.post(PATH)
    async def read_document(request: Request) -> Response:
        state = current()
        key = await state.authenticate(request, "run")
        _require_bytes(request)
        sender = caller(request, key)
        with readers.turn(sender) as memory:
            body = await read(request, limits.size_bytes, state.config.server.client_timeout_s, memory.add)
            await state.gatekeeper.admit(key, [])
            found = await unless_gone(request, readers.read(body))
        return Response(orjson.dumps(_reply(found)), media_type="application/json")

    return router


def _require_bytes(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MEDIA_TYPE:
        message = f"The Content-Type is {kind[:100] or 'missing'}: send Content-Type: {MEDIA_TYPE}."
        raise RequestError(message, code="unsupported_media_type")


def _reply(found: Json) -> DocumentText:
    if problem := found.get("problem"):
        raise RequestError(_PROBLEMS[problem])
    if not found["text"].strip():
        raise RequestError("The document has no text: it may be a scan, that is, pictures of pages.")
    return {
        "object": "document",
        "text": found["text"],
        "pages": found["pages"],
        "all_pages": found["all_pages"],
        "cut": found["cut"],
    }


class _Readers:
    """Reads few documents at once, and one of each sender; few more may arrive or wait."""

    def __init__(self, limits: DocumentLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._senders: set[str] = set()
        self._memory = BodyMemory(limits.waiting_bytes)

    async def read(self, data: bytes) -> Json:
        """What the reader found."""
        async with self._slots:
            try:
                async with asyncio.timeout(self._limits.wall_s):
                    return await self._run(data)
            except TimeoutError:
                return {"problem": TOO_COMPLEX}

    @contextmanager
    def turn(self, sender: str) -> Iterator[HeldBody]:
        """Held from before the document arrives until it is read, with memory for it. Raises Overloaded."""
        if sender in self._senders:
            raise Overloaded("Another document of yours is being read: send one after the other.", _RETRY_AFTER_S)
        if len(self._senders) >= self._limits.at_once + self._limits.waiting:
            raise Overloaded("Too many documents wait to be read.", _RETRY_AFTER_S)
        self._senders.add(sender)
        try:
            with self._memory.holding(sender) as held:
                yield held
        finally:
            self._senders.remove(sender)

    async def _run(self, data: bytes) -> Json:
        process = await asyncio.create_subprocess_exec(
            *reading.command(self._limits),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        try:
            said, _ = await process.communicate(data)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        found = reading.found(process.returncode, said)
        if reason := found.get("reason"):
            logger.warning("a document could not be read: %s", reason)
        return found
