"""`/v1/batches` and `/v1/messages/batches`: their requests, and files and batches in the form of each API."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cappella.batch.types import Batch, Status, StoredFile
from cappella.gateway.batch_types import BatchObject, FileObject, MessageBatch
from cappella.gateway.formats.fields import Wire
from cappella.gateway.formats.policy import Fields
from cappella.types import Json

MESSAGE_BATCHES = "/v1/messages/batches"
Endpoint = Literal[
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/classify",
]
"""The endpoints whose requests may be rows of a file."""
CUSTOM_ID = "^[a-zA-Z0-9_-]{1,64}$"
MIN_LIFETIME_S, MAX_LIFETIME_S = 3600, 30 * 86_400
_UNITS_S = {"h": 3600, "d": 86_400}
_MAX_WINDOW_S = 30 * 86_400


def window_s(text: str) -> float:
    """The seconds in a completion window."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([hd])", text, re.ASCII)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= _MAX_WINDOW_S:
        raise ValueError(f"{text[:40]!r} is not a window: write hours or days up to 30d, such as 24h or 3d")
    return seconds


def _window(text: str) -> str:
    window_s(text)
    return text


class ExpiresAfter(Wire):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)]


class BatchRequest(Wire):
    """A batch of the rows of a file."""

    input_file_id: str
    endpoint: Endpoint
    completion_window: Annotated[str, AfterValidator(_window)]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = None


class ResumeRequest(Wire):
    """Let a batch go on whose models have other weights now."""

    accept_new_weights: Literal[True]


class MessageRow(Wire):
    custom_id: Annotated[str, Field(pattern=CUSTOM_ID)]
    params: Json


class MessageBatchRequest(Wire):
    """Requests for messages; they are read one by one as they arrive, by `request_list.py`."""

    requests: Annotated[list[MessageRow], Field(min_length=1)]


FIELDS = Fields("input_file_id endpoint completion_window metadata output_expires_after")
RESUME_FIELDS = Fields("accept_new_weights")


def file_object(file: StoredFile) -> FileObject:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at),
        "filename": file.filename,
        "purpose": "batch" if file.purpose == "batch" else "batch_output",
        "status": "processed",
    }


def batch_object(batch: Batch) -> BatchObject:
    def at(status: Status) -> int | None:
        return int(batch.times[status]) if status in batch.times else None

    shown: BatchObject = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,  # type: ignore[typeddict-item]
        "input_file_id": batch.input_file_id,
        "completion_window": _window_text(batch.window_s),
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": at("in_progress"),
        "expires_at": int(batch.expires_at),
        "finalizing_at": at("finalizing"),
        "completed_at": at("completed"),
        "failed_at": at("failed"),
        "expired_at": at("expired"),
        "cancelling_at": at("cancelling"),
        "cancelled_at": at("cancelled"),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
        "total_tokens": batch.total_tokens,
    }
    if batch.paused:
        shown["paused"] = batch.paused
    return shown


def message_batch(batch: Batch) -> MessageBatch:
    left = batch.total - batch.completed - batch.failed
    ended = batch.is_finished
    cancelling = batch.times.get("cancelling")
    shown: MessageBatch = {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if cancelling else "in_progress",
        "request_counts": {
            "processing": 0 if ended else left,
            "succeeded": batch.completed,
            "errored": batch.failed,
            "canceled": left if batch.status == "cancelled" else 0,
            "expired": left if batch.status == "expired" else 0,
        },
        "created_at": _time_text(batch.created_at),
        "expires_at": _time_text(batch.expires_at),
        "ended_at": _time_text(batch.times[batch.status]) if ended else None,
        "cancel_initiated_at": _time_text(cancelling) if cancelling else None,
        "archived_at": None,
        # A path: behind a proxy, this server does not know under which address it is called.
        "results_url": f"{MESSAGE_BATCHES}/{batch.id}/results" if ended else None,
    }
    if batch.paused:
        shown["paused"] = batch.paused
    return shown


def _window_text(seconds: float) -> str:
    return f"{seconds / 3600:g}h"


def _time_text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()
