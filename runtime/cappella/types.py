"""Domain values. Standard library only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Message = Mapping[str, Any]
"""One turn of a conversation in OpenAI's chat form; engines take it as it is."""

Analysis = Mapping[str, Any]
"""The judge's comparison; its keys are those of `prompts.analysis_schema`, its labels are member names."""

AnalysisMode = Literal["before", "alongside", "off"]
Status = Literal["ok", "degraded", "single"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model draws its tokens; None leaves a setting to the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    max_completion_tokens: int | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, base: "Sampling") -> "Sampling":
        """`base`, with what is given here on top."""
        return replace(base, **self.given())


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one engine call; `cached_tokens` are the part of the prompt found in the prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream from an engine; the last ones carry the finish reason and the usage."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """One place on the panel. `name` is unique there, also when one model sits twice."""

    name: str
    model: str
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Call:
    """What one engine call cost: seconds since its start, tokens."""

    role: Literal["panel", "analysis", "final"]
    model: str
    usage: Usage
    first_token_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member said, whole."""

    seat: Seat
    content: str
    finish_reason: str
    call: Call
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a member gave no answer; `partial` is the text that came before it failed or was cut."""

    seat: Seat
    reason: str
    error: str
    status_code: int
    partial: str = ""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one request changes of its ensemble; None leaves it as configured."""

    panel: tuple[str, ...] | None = None
    judge: str | None = None
    analysis: AnalysisMode | None = None
    quorum: int | None = None
    round_timeout_s: float | None = None
    deadline_s: float | None = None
    panel_sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides how one run goes, already resolved from request, ensemble and defaults."""

    ensemble: str
    panel: tuple[Seat, ...]
    judge: str
    analysis: AnalysisMode
    quorum: int
    round_timeout_s: float
    deadline_s: float
    seed: int
    judge_sampling: Sampling = Sampling()
    criteria: str | None = None
    analysis_max_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds since the run began; `first_token_s` is the first token of the final answer."""

    panel_s: float
    analysis_s: float | None
    first_token_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One request through an ensemble: its final answer and its trace."""

    run_id: str
    settings: Settings
    content: str
    finish_reason: str
    status: Status
    answers: Sequence[Answer]
    failures: Sequence[Failure]
    labels: Mapping[str, str]
    analysis: Analysis | None
    failure_reason: str | None
    calls: Sequence[Call]
    timings: Timings


@dataclass(frozen=True, slots=True)
class RunStarted:
    run_id: str
    panel: Sequence[str]
    judge: str


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    member: str
    text: str


@dataclass(frozen=True, slots=True)
class AnswerDone:
    answer: Answer


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    failure: Failure


@dataclass(frozen=True, slots=True)
class AnalysisDone:
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class FinalDelta:
    text: str


Event = RunStarted | AnswerDelta | AnswerDone | AnswerFailed | AnalysisDone | FinalDelta
Emit = Callable[[Event], None]


@dataclass(slots=True)
class EngineStatus:
    """What the supervisor knows of one engine; `progress` runs from 0 to 1 while it loads."""

    model: str
    state: Literal["waiting", "loading", "ready", "restarting", "failed", "stopped"] = "waiting"
    stage: str = "waiting for its turn"
    progress: float = 0.0
    restarts: int = 0
    reason: str | None = None
