"""What a config may say of one ensemble: its panel, its judge, and how they work together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from cappella.config.fields import Name
from cappella.config.options import MAX_MEMBERS, MAX_SAMPLES, EnsembleOptions, Seat
from cappella.config.yaml_source import Path_
from cappella.types import Frozen, Sampling, SamplingOptions, Temperature
from cappella.vocabulary import GateMode


class Member(SamplingOptions):
    """A seat on the panel: a model, how it samples there, and what it is told before the conversation."""

    model: Name
    system: str | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None


class Judge(SamplingOptions):
    """The model that compares and writes."""

    model: Name
    temperature: Temperature | None = 0.0
    criteria: str | None = None
    analysis_max_tokens: Annotated[int, Field(ge=16)] = 1024


def _named(model: type[BaseModel]) -> BeforeValidator:
    """A bare model name stands for an entry with nothing else set."""
    return BeforeValidator(lambda value: {"model": value} if isinstance(value, str) else value)


Seats = Annotated[tuple[Annotated[Member, _named(Member)], ...], Field(min_length=1, max_length=MAX_MEMBERS)]


class GateConfig(Frozen):
    """Requests that need no panel go to `model` alone: by `rules` (short, one turn, plain text), or as the judge says.

    With mode `off` only a preset or a request turns it on.
    """

    mode: GateMode
    model: Name
    max_words: Annotated[int, Field(ge=1)] = 4


class Preset(EnsembleOptions):
    """A named departure from its ensemble, chosen by a request's `preset`."""

    panel: Seats | None = None
    judge: Annotated[Judge, _named(Judge)] | None = None
    gate: GateMode | None = None


class Ensemble(EnsembleOptions):
    """A panel, a judge and how they work together: what a client calls as `cappella/<name>`.

    `example` is a question worth trying; `serve` prints it.
    """

    panel: Seats
    judge: Annotated[Judge, _named(Judge)]
    gate: GateConfig | None = None
    tools: bool = False
    presets: Mapping[Name, Preset] = {}
    allow_overrides: bool = True
    example: str = "Say hello."

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Ensemble":
        parts: list[Preset | Ensemble] = [self, *self.presets.values()]
        for preset in parts:
            quorum, size = preset.quorum, sum(seat.samples for seat in self.seats_of(preset))
            if quorum is not None and quorum > size:
                raise ValueError(f"quorum {quorum} is larger than the panel of {size}")
        return self

    @property
    def seats(self) -> tuple[Seat, ...]:
        return self.seats_of(self)

    def seats_of(self, preset: "Preset | Ensemble") -> tuple[Seat, ...]:
        """The panel of a preset: its own, or the ensemble's."""
        members = preset.panel or self.panel
        samples = {**self.given(), **preset.given()}.get("samples", 1)
        return seats((m.model, m.sampling, m.system, m.samples or samples) for m in members)

    @property
    def models(self) -> Iterator[tuple[Path_, str]]:
        """Every model that is named here, and where."""
        parts: list[tuple[Path_, Preset | Ensemble]] = [((), self)]
        parts += [(("presets", name), preset) for name, preset in self.presets.items()]
        for where, part in parts:
            yield from (((*where, "panel", seat), member.model) for seat, member in enumerate(part.panel or ()))
            if part.judge:
                yield (*where, "judge"), part.judge.model

    def quorum_of(self, answers: int) -> int:
        """How many answers are enough where this many can come."""
        return min(self.quorum or 2, answers)

    def can_answer(self, up: Sequence[str]) -> bool:
        """Whether its quorum and its judge are among the models that are up."""
        able = sum(seat.samples for seat in self.seats if seat.model in up)
        return self.judge.model in up and able >= self.quorum_of(sum(seat.samples for seat in self.seats))


def seats(wanted: Iterator[tuple[str, Sampling, str | None, int]]) -> tuple[Seat, ...]:
    """Seats named after their models; a model's second seat is `name#2`, and so on."""
    counts: dict[str, int] = {}
    out = []
    for model, sampling, system, samples in wanted:
        counts[model] = counts.get(model, 0) + 1
        name = model if counts[model] == 1 else f"{model}#{counts[model]}"
        out.append(Seat(name, model, sampling, system, samples))
    return tuple(out)
