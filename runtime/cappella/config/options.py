"""Run options, each declared once: its name, type, bounds, default and meaning.

An ensemble and its presets (config/ensembles.py), the `fusion` object of a request (gateway/formats/fields.py) and `Settings` take
them from here. A new option is one field here, and the code that uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from cappella.types import Frozen, Positive, Sampling
from cappella.vocabulary import AnalysisMode, AnswerOrder, EarlyExit, GateMode, Strategy

MAX_MEMBERS = 8
MAX_SAMPLES = 16

Seconds = Annotated[float, Field(gt=0)]


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


class EnsembleOptions(Frozen):
    """The options that an ensemble, a preset and a request may set.

    A source that does not set an option, or sets it to null, leaves it to the next: request, preset, ensemble, default.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    strategy: Strategy = "synthesize"
    """How the answers become one."""
    analysis: AnalysisMode = "before"
    """Whether the judge compares the answers before it writes (and sees the comparison), meanwhile, or not at all."""
    quorum: Annotated[int, Field(ge=1, le=MAX_MEMBERS * MAX_SAMPLES)] | None = None
    """How many answers are enough; unset, two, or all of a smaller panel."""
    grace_s: Annotated[float, Field(ge=0)] | None = None
    """How long the other members may go on once the quorum is met; unset, until the round ends."""
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    """How many answers each seat gives, in one engine request."""
    layers: Annotated[int, Field(ge=1, le=4)] = 1
    """How many rounds the panel has; in each after the first it reads the answers of the one before."""
    review: bool = False
    """Whether members rank the answers, never their own, for the judge to see."""
    early_exit: EarlyExit = "off"
    """Whether answers that agree need no more judging: equal ones (case, spacing and the spelling of numbers aside), or
    such in the eyes of the judge."""
    debias: bool = False
    """Whether a choice is asked for in both orders of the answers."""
    show_reasoning: bool = False
    """Whether the judge sees the members' reasoning."""
    formatted_panel: bool = False
    """Whether members, and not only the final answer, are held to the output format that is asked for."""
    answer_order: AnswerOrder = "shuffled"
    """In what order the judge sees the answers: shuffled by the seed, or as they arrive, of which it can read more early."""
    early_prefill: bool = True
    """Whether the judge reads answers while the last member still writes."""
    max_total_tokens: Positive | None = None
    """The most tokens that all engine calls may take, prompts and answers; no call is made that would break it."""
    round_timeout_s: Seconds = 120.0
    """How long a round may take."""
    deadline_s: Seconds = 300.0
    """How long the whole run may take."""

    @model_validator(mode="before")
    @classmethod
    def _null_sets_nothing(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or None not in data.values():
            return data
        return {name: value for name, value in data.items() if value is not None or name not in Options.model_fields}

    def given(self) -> dict[str, Any]:
        """The options that are set here."""
        return {name: getattr(self, name) for name in self.model_fields_set if name in EnsembleOptions.model_fields}


class Options(EnsembleOptions):
    """All options that a request may set."""

    gate: GateMode = "off"
    """Whether a trivial request may go to one model (status `bypassed`), and whether rules or the judge decide that."""
    criteria: Annotated[str, Field(min_length=1)] | None = None
    """What the judge weighs first."""

    def given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one request changes of its ensemble; None leaves it as configured."""

    preset: str | None = None
    panel: tuple[str, ...] | None = None
    judge: str | None = None
    options: Options = Options()
    panel_sampling: Sampling = Sampling()
    model_sampling: tuple[tuple[str, Sampling], ...] = ()

    @property
    def change_something(self) -> bool:
        """Whether they ask for more than a preset, which is the operator's own."""
        others = self.panel is not None or self.judge is not None or self.model_sampling
        return bool(others or self.options.given() or self.panel_sampling.given())


@dataclass(frozen=True, slots=True)
class Gate:
    """The model that answers alone what needs no panel, and who decides that. `max_words` is the rules' limit."""

    mode: Literal["rules", "judge"]
    model: str
    max_words: int


class Settings(EnsembleOptions):
    """Everything that decides how one run goes, already resolved from request, preset, ensemble and defaults.

    `panel_watched` says that someone reads what the members say as they say it, and the judge's analysis.
    """

    ensemble: str
    panel: tuple[Seat, ...]
    judge: str
    quorum: int
    seed: int
    gate: Gate | None = None
    criteria: str | None = None
    judge_sampling: Sampling = Sampling()
    analysis_max_tokens: int = 1024
    preset: str | None = None
    panel_watched: bool = True

    @property
    def answer_names(self) -> list[str]:
        """The names of all answers that one round can give."""
        return [name for seat in self.panel for name in seat.answer_names]
