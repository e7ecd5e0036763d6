"""Types of the JSON replies with embeddings and scores, which are vLLM's; see reply_types.py."""

from typing import Literal, NotRequired

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.telemetry.trace_types import Count
from cappella.types import Json


class PoolingUsage(TypedDict):
    """Nothing is generated."""

    prompt_tokens: Count
    total_tokens: Count


class Embedding(TypedDict):
    """`embedding` is a list of numbers, or with `encoding_format: base64` their bytes in base64, as float32."""

    index: Count
    object: Literal["embedding"]
    embedding: list[float] | str


class Embeddings(TypedDict):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: PoolingUsage


class Ranked(TypedDict):
    """One document: its index in the request, and how well it fits the query."""

    index: Count
    relevance_score: float
    document: NotRequired[Json]


class Ranking(TypedDict):
    """The documents, best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: PoolingUsage


class ScoredText(TypedDict):
    index: Count
    object: str
    score: float


class Scores(TypedDict):
    object: Literal["list"]
    model: str
    data: list[ScoredText]
    usage: PoolingUsage


class ScoredReply(TypedDict):
    """`probs` has one entry: the score."""

    index: Count
    label: str | None
    probs: list[float]
    num_classes: Count


class Classes(TypedDict):
    object: Literal["list"]
    model: str
    data: list[ScoredReply]
    usage: PoolingUsage
