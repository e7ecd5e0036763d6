"""How a run shall go: what each source may say of it, and what they come to. Standard library only."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from cappella.types import Sampling

Strategy = Literal["synthesize", "select", "vote", "debate"]
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
AnswerOrder = Literal["shuffled", "arrival"]
GateMode = Literal["off", "rules", "judge"]


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
class Options:
    """How a run goes where one source has a say; None leaves it to the next: request, preset, ensemble, default.

    `quorum` counts answers; with `grace_s`, once it is met, who is later than that is cut; `samples` is per seat;
    `layers` counts rounds of the panel; `formatted_panel` holds members, not only the final answer, to the caller's
    form; `early_prefill` lets the judge read answers before all are there.
    """

    strategy: Strategy | None = None
    analysis: AnalysisMode | None = None
    quorum: int | None = None
    grace_s: float | None = None
    samples: int | None = None
    layers: int | None = None
    review: bool | None = None
    early_exit: EarlyExit | None = None
    gate: GateMode | None = None
    debias: bool | None = None
    show_reasoning: bool | None = None
    formatted_panel: bool | None = None
    answer_order: AnswerOrder | None = None
    early_prefill: bool | None = None
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
    """Everything that decides how one run goes, already resolved from request, preset, ensemble and defaults.

    `panel_watched` says that someone reads what the members say as they say it, and the judge's analysis.
    """

    ensemble: str
    panel: tuple[Seat, ...]
    judge: str
    quorum: int
    seed: int
    strategy: Strategy = "synthesize"
    analysis: AnalysisMode = "before"
    grace_s: float | None = None
    layers: int = 1
    review: bool = False
    early_exit: EarlyExit = "off"
    gate: Gate | None = None
    debias: bool = False
    show_reasoning: bool = False
    formatted_panel: bool = False
    answer_order: AnswerOrder = "shuffled"
    early_prefill: bool = True
    criteria: str | None = None
    max_total_tokens: int | None = None
    round_timeout_s: float = 120.0
    deadline_s: float = 300.0
    judge_sampling: Sampling = Sampling()
    analysis_max_tokens: int = 1024
    preset: str | None = None
    panel_watched: bool = True

    @property
    def answer_names(self) -> list[str]:
        """The names of all answers that one round can give."""
        return [name for seat in self.panel for name in seat.answer_names]
