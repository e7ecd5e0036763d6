"""Receives a request with a JSON body: its key, its size and pace, and its limits are checked before anybody looks at it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from cappella.auth.keys import Key
from cappella.gateway import images
from cappella.gateway.body_encoding import decoded, decoder_of
from cappella.gateway.body_memory import HeldBody
from cappella.gateway.request import Incoming, caller, read, require_json
from cappella.gateway.state import GatewayState
from cappella.gateway.validation import checked_json
from cappella.threads import MAX_INLINE_CHARS, off_loop_if_large

FORM_WORK = 25
"""A byte of a schema is as much work as so many of a text: its limits are measured, and its patterns."""
VALUE_WORK = 200
"""And each value of an object or list: it is parsed, checked and copied for itself."""
FORM_VALUE_WORK = 1600
"""Each value where there is a schema, which is followed with all its references."""
_FORMS = (b'"tools"', b'"response_format"', b'"structured_outputs"', b'"format"')


@asynccontextmanager
async def received(current: Callable[[], GatewayState], request: Request) -> AsyncIterator[Incoming]:
    """The request with its whole body, whose memory is held inside the context. Raises RequestError, Unauthorized and others."""
    state = current()
    key = await state.authenticate(request, "run")
    require_json(request)
    server = state.config.server
    with state.bodies.holding(caller(request, key)) as memory:
        decode = decoder_of(request.headers.get("content-encoding", ""))
        body = await read(request, server.max_body_bytes, server.client_timeout_s, memory.add)
        arrived_at = time.monotonic()
        if decode:
            body = await off_loop_if_large(MAX_INLINE_CHARS + 1, decoded, decode, body, server.max_body_bytes)
            memory.add(len(body))
        yield await checked(state, request, key, body, memory, arrived_at)


async def checked(
    state: GatewayState, request: Request, key: Key | None, body: bytes, memory: HeldBody, arrived_at: float
) -> Incoming:
    """The request with this body, which is a JSON object within the limits. Raises RequestError."""
    server, work = state.config.server, _work(body)
    wire, body = await off_loop_if_large(work * len(body), checked_json, body, server.limits)
    body = await images.with_files(body, wire, server.image_folder, server.max_body_bytes)
    return Incoming(request, request.url.path, key, body, wire, memory, arrived_at, work)


def _work(body: bytes) -> int:
    """How many characters a byte of the body is worth; a large one is not even searched in the event loop."""
    if not body or len(body) > MAX_INLINE_CHARS:
        return 1
    # Commas within texts count as well; that costs a moment on a thread.
    values = sum(map(body.count, (b",", b"[", b"{")))
    has_forms = any(name in body for name in _FORMS)
    value_work = FORM_VALUE_WORK if has_forms else VALUE_WORK
    return max(FORM_WORK if has_forms else 1, 1 + value_work * values // len(body))
