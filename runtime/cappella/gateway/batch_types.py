"""Types of the JSON replies about batches and their files; see reply_types.py."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from cappella.batch.progress import BatchProgress
from cappella.batch.types import Status
from cappella.telemetry.trace_types import Count
from cappella.types import Json


class FileObject(TypedDict):
    id: str
    object: Literal["file"]
    bytes: Count
    created_at: Count
    expires_at: Count
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class Files(TypedDict):
    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(TypedDict):
    id: str
    object: Literal["file"]
    deleted: bool


class BatchProblem(TypedDict):
    """What is wrong with a `line` of the input file."""

    code: str
    line: Count | None
    message: str
    param: str | None


class BatchProblems(TypedDict):
    object: Literal["list"]
    data: list[BatchProblem]


class RowCounts(TypedDict):
    total: Count
    completed: Count
    failed: Count


class BatchObject(TypedDict):
    """OpenAI's, and two more: `total_tokens` is what its rows took so far, `progress` comes until it has ended."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: Count
    in_progress_at: Count | None
    expires_at: Count
    finalizing_at: Count | None
    completed_at: Count | None
    failed_at: Count | None
    expired_at: Count | None
    cancelling_at: Count | None
    cancelled_at: Count | None
    request_counts: RowCounts
    metadata: Json | None
    total_tokens: Count
    progress: NotRequired[BatchProgress]


class Batches(TypedDict):
    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class RequestCounts(TypedDict):
    processing: Count
    succeeded: Count
    errored: Count
    canceled: Count
    expired: Count


class MessageBatch(TypedDict):
    """Anthropic's. `results_url` is a path of this server; `paused` is ours: why it does not go on now."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: RequestCounts
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    archived_at: None
    results_url: str | None
    paused: NotRequired[str]


class MessageBatches(TypedDict):
    data: list[MessageBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedMessageBatch(TypedDict):
    id: str
    type: Literal["message_batch_deleted"]
