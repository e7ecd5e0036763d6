"""The record of a run: its calls, answers, failures and verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from cappella.config.options import Settings
from cappella.ensemble.sources import FoundSources
from cappella.extraction.extractors import Reading
from cappella.types import Json, ToolCall, Usage
from cappella.vocabulary import AgreementMode, Confidence, EarlyExit, Evidence

if TYPE_CHECKING:
    from cappella.ensemble.judgement import Judgement

Analysis = Json
"""The judge's comparison, in the shape of `prompts.analysis_schema` with answers' names for letters."""

Status = Literal["ok", "degraded", "single", "bypassed"]
Role = Literal[
    "gate",
    "single",
    "panel",
    "lookup",
    "prefill",
    "review",
    "agreement",
    "analysis",
    "choice",
    "score",
    "fold",
    "final",
]


@dataclass(frozen=True, slots=True)
class Call:
    """The tokens and seconds of one engine call. `began_at` is on the clock of `time.monotonic`.

    `seat` is the seat's name for a member's call, else the model's. `tokens_per_step` is the mean number of tokens
    that one decoding step gave: 1 without speculative decoding. One `of_judge` reads the answers, from the beginning that an early
    prefill has read.
    """

    role: Role
    seat: str
    usage: Usage
    began_at: float
    first_token_s: float | None
    total_s: float
    tokens_per_step: float = 1.0
    of_judge: bool = False

    @property
    def ended_at(self) -> float:
        return self.began_at + self.total_s


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call of a tool by the `seat` with this name: that of the answer, or the judge's.

    `server` is None for a call that could not be made: there is no such tool, or its arguments are none. `shared` was made
    for another seat before; `as_text` was written as text. `began_at` is on the clock of `time.monotonic`.
    """

    seat: str
    server: str | None
    tool: str
    arguments: str
    began_at: float
    total_s: float
    is_error: bool
    shared: bool
    result_chars: int
    as_text: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer of a member or the judge; `stop_sequence` is the caller's stop text that ended it.

    `certainty` is the mean log-probability of its tokens, where the engine was asked for it. `thought` is the call before
    `call` that gave thoughts alone, which `reasoning` begins with. `lookups` are the calls before it that ended in calls of
    the seat's own tools.
    """

    name: str
    content: str
    finish_reason: str
    call: Call
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[Json] = ()
    stop_sequence: str | None = None
    certainty: float | None = None
    thought: Call | None = None
    lookups: Sequence[Call] = ()

    @property
    def took_s(self) -> float:
        """From the beginning of its first call to the end of its last, what its tools took included."""
        return self.call.ended_at - (self.lookups[0] if self.lookups else self.call).began_at


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a straggler's grace: the quorum took `quorum_s`, and `grace_s` more were given."""

    quorum_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a member gave no answer; `partial` is the text generated before it failed or was cancelled.

    `cut` has the figures of a straggler.
    """

    name: str
    reason: str
    error: str
    status_code: int
    partial: str = ""
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Shortened:
    """An answer that the judge read without its middle: `head` and `tail` are the characters that were left of it.

    It read `tokens` of its own count, `of` so many.
    """

    name: str
    head: int
    tail: int
    tokens: int
    of: int


@dataclass(frozen=True, slots=True)
class FailedJudge:
    """A judge that was not up, or broke, and in whose place the next of the list judged."""

    model: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """How many samples were asked, of `most` so many, and how sure the leading value is to stay ahead."""

    asked: int
    most: int
    lead: float


@dataclass(frozen=True, slots=True)
class Grouped:
    """The names of answers in free text that were found to say the same, and `by` what.

    That is their words where the judge or the embeddings were to say it and failed, for this `reason`.
    """

    by: AgreementMode
    groups: Sequence[Sequence[str]]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One round of the panel: its answers and failures in the order of the seats, and its calls."""

    answers: Sequence[Answer]
    failures: Sequence[Failure]
    calls: Sequence[Call] = ()


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the gate's `model` answers alone, without the panel, and why."""

    bypass: bool
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The final answer and how it came about. `chosen` names the answer that was returned verbatim, if one was.

    `merged` names those whose fields a vote put together, if it did: nobody wrote that answer.

    `probabilities` are the judge's, by answer; `votes` maps one answer of each group that says the same to the names of
    all answers in the group. `scores` are those of a judge that scores, None for an answer that it could not read; `tied`
    names the answers with the best one, if there are several. `read` has the values by which answers were counted. `evidence`
    has each part of what was weighed, in log-odds, by answer; `margin` is by how much the best one leads, and `confidence` is low
    where that says nothing.
    """

    answer: Answer
    chosen: str | None = None
    probabilities: Mapping[str, float] | None = None
    votes: Mapping[str, Sequence[str]] | None = None
    early_exit: EarlyExit = "off"
    scores: Mapping[str, float | None] | None = None
    tied: Sequence[str] | None = None
    read: Reading | None = None
    evidence: Mapping[Evidence, Mapping[str, float]] | None = None
    margin: float | None = None
    confidence: Confidence | None = None
    merged: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """A breakdown of a run's time.

    `panel_s`, `first_token_s` (of the final answer) and `total_s` count from the start of the run, and
    `judge_first_token_s` from the end of the panel. `floor_s` is the time of each round's slowest answer plus the
    judge's decoding time; `overhead_s` is the time without a running engine call. Of the judge's prompt,
    `early_prefill_tokens` were prefilled while the panel was answering, `late_prefill_tokens` afterwards.
    """

    panel_s: float
    analysis_s: float | None
    judge_first_token_s: float | None
    first_token_s: float | None
    total_s: float
    floor_s: float
    overhead_s: float
    early_prefill_tokens: int
    late_prefill_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One request through an ensemble: its verdict and its trace.

    `answers` are those that the judge saw; `rounds` holds every round of the panel, in order. `prompt_tokens` is the size
    of the caller's conversation alone, for the judge's model (for the gate's in a bypassed run). `shortened` are the answers
    that the judge read in part, `dropped_points` those of its analysis that were only letters. `progress` is what was told of
    it before its answer. `tool_uses` are the calls of tools, `missing_tools` the servers whose tools a seat was not offered, and why. One that only judges has a `judgement`, and the best of the judged answers as its own.
    """

    run_id: str
    settings: Settings
    status: Status
    verdict: Verdict
    answers: Sequence[Answer]
    rounds: Sequence[Panel]
    labels: Mapping[str, str]
    analysis: Analysis | None
    ranking: Sequence[str] | None
    gate: GateDecision | None
    failure_reason: str | None
    calls: Sequence[Call]
    prompt_tokens: int
    timings: Timings
    shortened: Sequence[Shortened] = ()
    dropped_points: int = 0
    failed_judges: Sequence["FailedJudge"] = ()
    progress: str = ""
    sampled: Sampled | None = None
    grouped: Grouped | None = None
    judgement: "Judgement | None" = None
    tool_uses: Sequence[ToolUse] = ()
    missing_tools: Mapping[str, str] = field(default_factory=dict)
    sources: FoundSources | None = None

    @property
    def answer(self) -> Answer:
        """The final answer."""
        return self.verdict.answer

    @property
    def told_answer(self) -> Answer:
        """The final answer as it is shown: with the run's progress before its own reasoning."""
        return replace(self.answer, reasoning=self.progress + self.answer.reasoning)

    @property
    def content(self) -> str:
        return self.verdict.answer.content

    @property
    def failures(self) -> Sequence[Failure]:
        """The failures of all rounds."""
        return [failure for panel in self.rounds for failure in panel.failures]
