"""What became of a run: calls, answers, failures, the verdict. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cappella.options import EarlyExit, Settings
from cappella.types import Json, ToolCall, Usage

Analysis = Json
"""The judge's comparison; its keys are those of `prompts.analysis_schema`, its labels are answers' names."""

Status = Literal["ok", "degraded", "single", "bypassed"]
Role = Literal["gate", "single", "panel", "review", "agreement", "analysis", "choice", "final"]


@dataclass(frozen=True, slots=True)
class Call:
    """What one engine call cost: seconds since its start, tokens."""

    role: Role
    model: str
    usage: Usage
    first_token_s: float | None
    total_s: float


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
    """Seconds since the run began; `first_token_s` is the first token of the final answer."""

    panel_s: float
    analysis_s: float | None
    first_token_s: float | None
    total_s: float


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
