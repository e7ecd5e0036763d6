"""What is stored of batches: files, batches, their rows, and how these ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cappella.types import Json

Api = Literal["openai", "anthropic"]
Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
"""As OpenAI's API has them. Batches are validated as they are created, and finalized at once."""
UNFINISHED: tuple[Status, ...] = ("in_progress", "cancelling")
Purpose = Literal["batch", "batch_output", "messages", "messages_output"]
"""The last two are of Anthropic's batches: its API has no files."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of one key; its content lies in the folder under its id. It expires at `expires_at`."""

    id: str
    key_id: str | None
    purpose: Purpose
    filename: str
    size_bytes: int
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that is asked for. With `errors` it has failed; its output expires `output_expires_s` after it is written."""

    key_id: str | None
    api: Api
    endpoint: str
    input_file_id: str
    window_s: float
    metadata: Json | None = None
    output_expires_s: float | None = None
    errors: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row of a batch: its line (from 1) of the input file, and where that lies in the file. Rows go in the order of `order`."""

    number: int
    custom_id: str
    offset: int
    size_bytes: int
    order: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of one key. `times` has the seconds since the epoch at which each status began.

    `completed` and `failed` count the rows that have ended. `weights` is the digest that `BatchStore.begin` was given, ""
    before. `paused` is why the batch does not go on now.
    """

    id: str
    key_id: str | None
    api: Api
    endpoint: str
    status: Status
    created_at: float
    window_s: float
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    output_expires_s: float | None
    metadata: Json | None
    errors: Sequence[Json]
    times: Mapping[Status, float]
    total: int
    completed: int
    failed: int
    total_tokens: int
    weights: str
    paused: str | None = None

    @property
    def expires_at(self) -> float:
        return self.created_at + self.window_s

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED


@dataclass(frozen=True, slots=True)
class Row:
    """A row to be answered: a request with this `body` to `path`. Rows are answered in the order of `rank`."""

    batch_id: str
    number: int
    custom_id: str
    path: str
    body: bytes
    rank: int


@dataclass(frozen=True, slots=True)
class RowEnd:
    """How a row ended: `body` is the JSON of the reply, or of the error, in the form of the batch's API."""

    status_code: int
    request_id: str
    body: bytes
    total_tokens: int = 0

    @property
    def is_ok(self) -> bool:
        return self.status_code < 400
