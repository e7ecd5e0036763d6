"""Types of the JSON of a run's trace and usage. Optional keys are absent when they do not apply."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

# pydantic does not accept typing.TypedDict before Python 3.12.
from typing_extensions import TypedDict

from cappella.ensemble.run import Role, Status
from cappella.telemetry.judged import Told
from cappella.types import Json
from cappella.vocabulary import AgreementMode, Confidence, Evidence, Extractor, Strategy

Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float | None, Field(description="Milliseconds.")]


class FailedModel(TypedDict):
    """A member without an answer. One that was `cut` had `grace_ms` after the quorum, which took `quorum_ms`."""

    model: str
    error: str
    status_code: Count
    reason: str
    partial: NotRequired[str]
    cut: NotRequired[Literal["grace"]]
    quorum_ms: NotRequired[Milliseconds]
    grace_ms: NotRequired[Milliseconds]


class NamedCall(TypedDict):
    name: str
    arguments: str


class PanelAnswer(TypedDict):
    model: str
    content: str
    finish_reason: str
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[NamedCall]]


class ShortenedAnswer(TypedDict):
    """An answer of which the judge read so many `tokens`, of its own count, without the middle."""

    model: str
    tokens: Count
    of: Count


class FailedJudge(TypedDict):
    """A judge in whose place the next of the list judged."""

    model: str
    reason: str
    error: str


class ToolUse(TypedDict):
    """A call of a tool by a member, or by the judge; `server` is null if it could not be made, `shared` was made for another.

    One `as_text` was written as text, and not in the form of calls.

    `start_ms` is on the clock of `usage.fusion_details`.
    """

    seat: str
    server: str | None
    tool: NotRequired[str]
    arguments: NotRequired[str]
    start_ms: Milliseconds
    ms: Milliseconds
    is_error: bool
    shared: bool
    result_chars: Count
    as_text: NotRequired[bool]


class Decision(TypedDict):
    bypass: bool
    model: str
    reason: str


class Extracted(TypedDict):
    """The values by which answers were counted, null for one without, and the extractor that found them."""

    by: Extractor
    values: dict[str, str | None]


class SampledSeats(TypedDict):
    """How many samples were asked, of `most` so many, and how sure the leading value is to stay ahead."""

    asked: Count
    most: Count
    lead: float


class GroupedAnswers(TypedDict):
    """The answers in free text that say the same, by the judge or embeddings; by their words if that failed."""

    by: AgreementMode
    groups: list[list[str]]
    failure_reason: NotRequired[str]


class ToldSource(TypedDict):
    """A passage that the run found, and who cites it. Of a long one `text` is the beginning of `text_chars` characters."""

    handle: str
    documents: str
    path: str
    place: str
    title: NotRequired[str]
    text: str
    text_chars: NotRequired[Count]
    found_by: list[str]
    cited: bool
    cited_by: list[str]


class SourceCounts(TypedDict):
    """How many passages a run found, and how many of them its answer cites; recorded where their texts are not."""

    found: Count
    cited: Count


class SourcesTrace(TypedDict):
    """What the run found, and the handles that its answer cites without a source: cut, or left in a requested format."""

    sources: NotRequired[list[ToldSource]]
    source_counts: NotRequired[SourceCounts]
    removed_citations: NotRequired[list[str]]
    unknown_citations: NotRequired[list[str]]


class WeighedTrace(TypedDict):
    """By what an answer was chosen: values, the parts of the evidence in log-odds, by how much the best leads."""

    sampled: NotRequired[SampledSeats]
    extracted: NotRequired[Extracted]
    agreement: NotRequired[GroupedAnswers]
    evidence: NotRequired[dict[Evidence, dict[str, float]]]
    margin: NotRequired[float]
    confidence: NotRequired[Confidence]


class Counts(TypedDict):
    """Tokens of prompts and answers."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: NotRequired[Count]
    prompt_tokens_details: NotRequired[Any]
    completion_tokens_details: NotRequired[Any]


class UnfinishedTrace(TypedDict):
    """The trace of a run without an answer."""

    run_id: str
    status: str
    ensemble: str
    strategy: Strategy
    judge_model: str | None
    analysis_models: list[str]
    failed_models: list[FailedModel]
    seed: Count
    responses: NotRequired[list[PanelAnswer]]
    tool_calls: NotRequired[list[ToolUse]]
    missing_tools: NotRequired[dict[str, str]]


class Trace(WeighedTrace, SourcesTrace):
    """The trace of a run; keys of stages that did not happen are absent. `usage` sums all its engine calls.

    `judge_model` is null where no run with these settings asks a judge.
    """

    run_id: str
    status: Status
    ensemble: str
    strategy: Strategy
    judge_model: str | None
    analysis_models: list[str]
    failed_models: list[FailedModel]
    labels: dict[str, str]
    seed: Count
    timings: dict[str, float | None]
    usage: Counts
    analysis: NotRequired[Json | None]
    responses: NotRequired[list[PanelAnswer]]
    rounds: NotRequired[list[list[PanelAnswer]]]
    preset: NotRequired[str]
    gate: NotRequired[Decision]
    chosen: NotRequired[str]
    merged: NotRequired[list[str]]
    probabilities: NotRequired[dict[str, float]]
    scores: NotRequired[dict[str, float | None]]
    tied: NotRequired[list[str]]
    votes: NotRequired[dict[str, list[str]]]
    ranking: NotRequired[list[str]]
    early_exit: NotRequired[str]
    shortened: NotRequired[list[ShortenedAnswer]]
    dropped_points: NotRequired[Count]
    failed_judges: NotRequired[list[FailedJudge]]
    prompts: NotRequired[dict[str, str]]
    own_knowledge: NotRequired[bool]
    ignored: NotRequired[list[str]]
    given: NotRequired[list[str]]
    judgement: NotRequired[Told]
    tool_calls: NotRequired[list[ToolUse]]
    missing_tools: NotRequired[dict[str, str]]
    failure_reason: NotRequired[str]


class CallCost(TypedDict):
    """One engine call; its counts are `estimated` if it was cut, or a remote server reports none."""

    role: Role
    model: str
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    estimated: NotRequired[bool]
    tokens_per_step: NotRequired[float]
    start_ms: Milliseconds
    first_token_ms: Milliseconds
    ms: Milliseconds


class Usage(Counts):
    """Tokens of the conversation and of the answer, and each engine call of the run."""

    fusion_details: NotRequired[list[CallCost]]


class RunSummary(TypedDict):
    """A recorded run as /api/runs lists it; `error` is null if the run did not fail."""

    id: str
    object: Literal["run"]
    time: str
    model: str
    key: str | None
    status: str
    error: Json | None
    total_ms: Milliseconds


class RunContent(TypedDict, total=False):
    """What was sent and answered, if the config records it."""

    messages: list[Json]
    answer: PanelAnswer | None


class Run(RunSummary, RunContent):
    """A recorded run; the `usage` of one without an answer sums all its engine calls."""

    usage: Usage
    fusion: Trace | UnfinishedTrace | Json
