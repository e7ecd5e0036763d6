"""Domain values. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Json = Mapping[str, Any]

Message = Json
"""One turn of a conversation in OpenAI's chat form; engines take it as it is."""

Analysis = Json
"""The judge's comparison; its keys are those of `prompts.analysis_schema`, its labels are answers' names."""

Strategy = Literal["synthesize", "select", "vote"]
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
GateMode = Literal["off", "rules", "judge"]
Status = Literal["ok", "degraded", "single", "bypassed"]
Role = Literal["gate", "single", "panel", "review", "agreement", "analysis", "choice", "final"]


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
class Form:
    """A shape that an answer must have, as the field of the engine's API that asks for it."""

    field: Literal["response_format", "structured_outputs"]
    value: Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. `logprobs` is how many alternatives to report per token, None for no report at all."""

    messages: Sequence[Message]
    tools: Sequence[Json] = ()
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    form: Form | None = None
    logprobs: int | None = None
    reasoning_effort: str | None = None
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Traits:
    """What a model takes beyond text: tools (and calls them), images, an effort to reason with."""

    tools: bool = False
    images: bool = False
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one engine call; `cached_tokens` are the part of the prompt found in the prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call, or a piece of one: pieces of the same `index` are joined in order."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def joined(self, piece: "ToolCall") -> "ToolCall":
        """This with the next piece behind it."""
        return ToolCall(self.index, self.id or piece.id, self.name + piece.name, self.arguments + piece.arguments)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream from an engine; `sample` says of which answer, the last ones carry reason and usage.

    `logprobs` are in OpenAI's form, one entry a token.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[Json] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    sample: int = 0
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """One place on the panel. `name` is unique there, also when one model sits twice.

    It gives `samples` answers to one request; `system` is put before the conversation.
    """

    name: str
    model: str
    sampling: Sampling = Sampling()
    system: str | None = None
    samples: int = 1

    @property
    def answer_names(self) -> list[str]:
        """What its answers are called: the seat's name, with a number if there are several."""
        return [self.name] if self.samples == 1 else [f"{self.name}~{i + 1}" for i in range(self.samples)]


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
class Options:
    """How a run goes where one source has a say; None leaves it to the next: request, preset, ensemble, default.

    `quorum` counts answers; `samples` is per seat; `layers` counts rounds of the panel; `formatted_panel` holds
    members, not only the final answer, to the caller's form.
    """

    strategy: Strategy | None = None
    analysis: AnalysisMode | None = None
    quorum: int | None = None
    samples: int | None = None
    layers: int | None = None
    review: bool | None = None
    early_exit: EarlyExit | None = None
    gate: GateMode | None = None
    debias: bool | None = None
    show_reasoning: bool | None = None
    formatted_panel: bool | None = None
    criteria: str | None = None
    max_total_tokens: int | None = None
    round_timeout_s: float | None = None
    deadline_s: float | None = None

    def over(self, base: "Options") -> "Options":
        """`base`, with what is given here on top."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(base, **given)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one request changes of its ensemble; None leaves it as configured."""

    preset: str | None = None
    panel: tuple[str, ...] | None = None
    judge: str | None = None
    options: Options = Options()
    panel_sampling: Sampling = Sampling()
    model_sampling: tuple[tuple[str, Sampling], ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """Who answers alone what needs no panel, and who decides that. `max_words` is the rules' limit."""

    mode: Literal["rules", "judge"]
    model: str
    max_words: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides how one run goes, already resolved from request, preset, ensemble and defaults."""

    ensemble: str
    panel: tuple[Seat, ...]
    judge: str
    quorum: int
    seed: int
    strategy: Strategy = "synthesize"
    analysis: AnalysisMode = "before"
    layers: int = 1
    review: bool = False
    early_exit: EarlyExit = "off"
    gate: Gate | None = None
    debias: bool = False
    show_reasoning: bool = False
    formatted_panel: bool = False
    criteria: str | None = None
    max_total_tokens: int | None = None
    round_timeout_s: float = 120.0
    deadline_s: float = 300.0
    judge_sampling: Sampling = Sampling()
    analysis_max_tokens: int = 1024
    preset: str | None = None

    @property
    def answer_names(self) -> list[str]:
        """The names of all answers that one round can give."""
        return [name for seat in self.panel for name in seat.answer_names]


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


@dataclass(slots=True)
class EngineStatus:
    """What the supervisor knows of one engine; `progress` runs from 0 to 1 while it loads."""

    model: str
    state: Literal["waiting", "loading", "ready", "restarting", "failed", "stopped"] = "waiting"
    stage: str = "waiting for its turn"
    progress: float = 0.0
    restarts: int = 0
    reason: str | None = None

    @property
    def settled(self) -> bool:
        """Whether its start has ended, well or not."""
        return self.state in ("ready", "failed", "stopped")
