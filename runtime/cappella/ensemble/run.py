"""What became of a run: calls, answers, failures, the verdict. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cappella.config.options import Settings
from cappella.types import Json, ToolCall, Usage
from cappella.vocabulary import EarlyExit

Analysis = Json
"""The judge's comparison; its keys are those of `prompts.analysis_schema`, its labels are answers' names."""

Status = Literal["ok", "degraded", "single", "bypassed"]
Role = Literal["gate", "single", "panel", "prefill", "review", "agreement", "analysis", "choice", "final"]


@dataclass(frozen=True, slots=True)
class Call:
    """What one engine call cost: seconds since its start, tokens. `began_at` is on the clock of `time.monotonic`.

    `tokens_per_step` is 1 unless the engine guesses ahead: then, how many of its tokens one step gave on average.
    """

    role: Role
    model: str
    usage: Usage
    began_at: float
    first_token_s: float | None
    total_s: float
    tokens_per_step: float = 1.0

    @property
    def ended_at(self) -> float:
        return self.began_at + self.total_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member said, whole; `stop_sequence` is the caller's stop text that ended it."""

    name: str
    content: str
    finish_reason: str
    call: Call
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[Json] = ()
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a member gave no answer; `partial` is the text that came before it failed or was cut."""

    name: str
    reason: str
    error: str
    status_code: int
    partial: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """What a round gave, in the order of the seats, and what it cost."""

    answers: Sequence[Answer]
    failures: Sequence[Failure]
    calls: Sequence[Call] = ()


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the panel was passed by, and why."""

    bypass: bool
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the answers became one. `chosen` is the name of the answer that was returned verbatim, if one was.

    `probabilities` are the judge's, by answer; `votes` say who stood behind each answer's wording.
    """

    answer: Answer
    chosen: str | None = None
    probabilities: Mapping[str, float] | None = None
    votes: Mapping[str, Sequence[str]] | None = None
    early_exit: EarlyExit = "off"


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a run's time went.

    `panel_s`, `first_token_s` (of the final answer) and `total_s` count from the run's beginning, `judge_first_token_s`
    from the panel's end. `floor_s` is the slowest member that was waited for plus the time in which the judge wrote;
    `overhead_s` the time in which no engine was asked anything. Of the judge's prompt, `early_prefill_tokens` were read
    while the panel spoke, `late_prefill_tokens` after it.
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

    `answers` are what the judge saw; `rounds` are all of the panel's, the last one last.
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
    timings: Timings

    @property
    def answer(self) -> Answer:
        """The final answer."""
        return self.verdict.answer

    @property
    def content(self) -> str:
        return self.verdict.answer.content

    @property
    def failures(self) -> Sequence[Failure]:
        """Who failed, in whatever round."""
        return [failure for panel in self.rounds for failure in panel.failures]
