"""Answers one row of a batch as a request is answered, over engines that record its calls."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from cappella.auth.keys import Key
from cappella.batch.engines import RecordedEngine, RowCalls
from cappella.batch.phases import Groups, Host, Online, Phases, is_within
from cappella.batch.progress import RowMeter
from cappella.batch.runner import Job, NotNow
from cappella.batch.runs import RowPipeline
from cappella.batch.steps import counts_of_reply
from cappella.batch.types import RowEnd
from cappella.config import identity
from cappella.errors import EngineUnusable, ShuttingDown, Unauthorized
from cappella.gateway import errors, pooling
from cappella.gateway.admission import Admission
from cappella.gateway.body_memory import BodyMemory
from cappella.gateway.drain import InFlight
from cappella.gateway.limits import answer_count
from cappella.gateway.receive import checked
from cappella.gateway.routes import answer_request
from cappella.gateway.state import GatewayState
from cappella.gateway.tasks import sequences
from cappella.telemetry import records
from cappella.telemetry.records import RequestRecord
from cappella.threads import MAX_INLINE_CHARS, joined, off_loop_if_large

NO_LIMIT = 1 << 62
"""The runner and the phases have the limits of batches."""
_END_BYTES = 1 << 10
"""What is looked at of each end of a large reply, which may begin and end with blanks."""
_LATER = (429, 503)
"""Statuses for which nothing of a request is at fault: the row is answered later."""


async def begin_rows(current: Callable[[], GatewayState], groups: Groups | None) -> "BatchRows":
    """What answers rows under the config that is served now. Raises ConfigError if its weights cannot be read."""
    state = current()
    return BatchRows(state, current, groups, await asyncio.to_thread(identity.digest, state.config))


class BatchRows:
    """See `runner.Work`."""

    def __init__(
        self, state: GatewayState, current: Callable[[], GatewayState], groups: Groups | None, weights: str
    ) -> None:
        self.weights = weights
        self._current = current
        self._shown = state
        self._phases = _phases(state, current, groups)
        admission = Admission(dict.fromkeys(state.config.models, NO_LIMIT), NO_LIMIT)
        # A reload waits for what is in flight; rows begin anew under the next config.
        bodies, in_flight = BodyMemory(NO_LIMIT), InFlight()
        self._state = replace(state, admission=admission, bodies=bodies, in_flight=in_flight, responses=None)

    @property
    def sequences(self) -> int:
        return self._phases.sequences

    @property
    def is_current(self) -> bool:
        return self._current() is self._shown

    async def run(self) -> None:
        await self._phases.run()

    async def answer(self, job: Job) -> RowEnd:
        """See `runner.Work.answer`."""
        records.begin(RequestRecord("POST", job.row.path))
        try:
            with self._shown.rows.track(_cut_by_the_runner):
                return await self._ended(job)
        except ShuttingDown as error:
            raise NotNow("The server has reloaded its configuration.") from error

    async def _ended(self, job: Job) -> RowEnd:
        request = Request(
            {"type": "http", "method": "POST", "path": job.row.path, "headers": [], "query_string": b""}, _never
        )
        with job.meter.row(self._phases.groups) as meter:
            try:
                end = await _end(job.row.path, *await _whole(request, await self._respond(request, job, meter)))
            except NotNow:
                raise
            except Exception as error:  # noqa: BLE001 - as the gateway's own handler does
                end = await _end(job.row.path, *await _whole(request, await errors.error_reply(request, error)))
            meter.has_ended = True
        return end

    async def _respond(self, request: Request, job: Job, meter: RowMeter) -> Response:
        key = await self._key_of(job)
        calls = RowCalls(self._phases, job.order, job.stored, job.keep, meter)
        state = self._state_of(calls, hmac.digest(job.secret, str(job.row.number).encode(), hashlib.sha256))
        state.act_for(key)
        try:
            return await _answered(state, request, key, job, calls)
        finally:
            # The run counts all its calls, and these were counted when they were made.
            prompt_tokens = sum(usage.prompt_tokens for usage in calls.replayed)
            completion_tokens = sum(usage.completion_tokens for usage in calls.replayed)
            await state.gatekeeper.count_tokens(key, -prompt_tokens, -completion_tokens)

    async def _key_of(self, job: Job) -> Key | None:
        """The batch's key, without its limits per minute. Raises Unauthorized if it was revoked."""
        if job.batch.key_id is None:
            return None
        key = await self._state.gatekeeper.named(job.batch.key_id)
        if key is None:
            raise Unauthorized("The key of this batch was revoked.")
        return replace(key, requests_per_minute=None, tokens_per_minute=None)

    def _state_of(self, calls: RowCalls, secret: bytes) -> GatewayState:
        """The state with engines that record the calls of one row, which asks nothing else of them."""
        state = self._state
        engines = {
            name: RecordedEngine(name, state.config.host_of[name], engine, calls)
            for name, engine in state.engines.items()
        }
        deployment = replace(state.deployment, engines=cast(Any, engines))
        return replace(
            state, deployment=deployment, pipeline=RowPipeline(engines, calls, secret, state.pipeline.tool_servers)
        )


async def _answered(state: GatewayState, request: Request, key: Key | None, job: Job, calls: RowCalls) -> Response:
    with state.bodies.holding(job.batch.id) as memory:
        memory.add(len(job.row.body))
        incoming = await checked(state, request, key, job.row.body, memory, time.monotonic())
        api = pooling.APIS.get(job.row.path)
        texts = sequences(api.engine_path, incoming.wire, NO_LIMIT) if api else 0
        calls.forwarded_size = texts or answer_count(incoming.wire)
        if api:
            return await pooling.answer_pooling(state, incoming, api)
        return await answer_request(state, incoming)


def _phases(state: GatewayState, current: Callable[[], GatewayState], groups: Groups | None) -> Phases:
    config, plan = state.config, state.deployment.plan
    assert config.server.batch
    share, when = config.server.batch.share, config.server.batch.when
    turns = {name: placed.turn for name, placed in plan.placed.items()}
    max_calls = state.deployment.max_calls
    hosts = {name: Host(state.engines[name], max_calls[name], turns.get(name)) for name in config.models}

    def online() -> Online:
        admission = current().admission
        return Online(admission.is_busy, admission.held)

    return Phases(hosts, share, online, groups, lambda: is_within(when, datetime.now().time()))


async def _whole(request: Request, response: Response) -> tuple[int, bytes]:
    """The status and the body of a reply, a streamed one included."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await response(request.scope, request.receive, send)
    pieces = [message.get("body", b"") for message in sent]
    return sent[0]["status"], await joined(pieces)


def _cut_by_the_runner() -> None:
    """A reload cuts no row: the runner does, once it sees that the config is not served any longer."""


async def _never() -> Message:
    """A client that never leaves."""
    left: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await left


async def _end(path: str, status: int, body: bytes) -> RowEnd:
    """How a row with this reply ended. Raises NotNow, and EngineUnusable if it is no JSON object, as only a model's own may be."""
    if status in _LATER:
        raise NotNow(_message(body) or f"A model replied with status {status}.")
    if not _is_object(body):
        raise EngineUnusable("The model's reply is no JSON object.", "invalid_format")
    is_pooling = path in pooling.APIS
    work_chars = 0 if is_pooling else len(body)
    counts = await off_loop_if_large(work_chars, counts_of_reply, body, is_pooling)
    line = await off_loop_if_large(len(body), _on_one_line, body)
    return RowEnd(status, f"req_{secrets.token_hex(12)}", line, _total_tokens(counts))


def _on_one_line(body: bytes) -> bytes:
    """The same JSON as a part of a line: in its texts no line ends."""
    return body.replace(b"\n", b" ").replace(b"\r", b" ").strip()


def _is_object(body: bytes) -> bool:
    """Of a large reply only the ends are looked at: it may be 40 MB of embeddings, which take half a second to parse."""
    if len(body) > MAX_INLINE_CHARS:
        return body[:_END_BYTES].lstrip()[:1] == b"{" and body[-_END_BYTES:].rstrip()[-1:] == b"}"
    return isinstance(_parsed(body), dict)


def _message(body: bytes) -> str:
    """What an error of any API says; "" for what is none."""
    reply = _parsed(body)
    error = reply.get("error") if isinstance(reply, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or "")


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _total_tokens(counts: Mapping[str, int]) -> int:
    """The tokens that a reply of any API reports."""
    names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    return counts.get("total_tokens") or sum(counts.get(name, 0) for name in names)
