"""Ensembles in a config: the panel, the judge, presets and run options."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from cappella.config.abilities import asks_judge_without_tie, counts_on_judge, may_ask_judge, needs_judge
from cappella.config.fields import Name
from cappella.config.options import MAX_ANSWERS, MAX_MEMBERS, EnsembleOptions, Seat
from cappella.config.own_prompts import OwnPrompts
from cappella.config.seat_tools import DEFAULT_TOOL_CALLS, SeatTools
from cappella.config.weighing import MAX_SAMPLES, most_samples
from cappella.config.yaml_source import Path_
from cappella.types import Frozen, SamplingOptions, Temperature
from cappella.vocabulary import GateMode, ToolChoice

MAX_EXAMPLES = 12
MAX_TOOL_CALLS = 16


def _entry(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


def _judge_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"].remove("judge")


def _first_of(value: object) -> object:
    """A list of judges as the first one, with the others in its `then`."""
    if not isinstance(value, list | tuple) or not value:
        return _entry(value)
    first = _entry(value[0])
    return {**first, "then": list(value[1:])} if isinstance(first, dict) else first


class ToolUser(SamplingOptions):
    """A seat whose model may call the `tools` and search the documents of these names before it answers, or must."""

    tools: tuple[Name, ...] = ()
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_TOOL_CALLS)] = DEFAULT_TOOL_CALLS
    tool_choice: ToolChoice = "auto"

    @property
    def seat_tools(self) -> SeatTools:
        return SeatTools(self.tools, self.max_tool_calls, self.tool_choice)


class Member(ToolUser):
    """A panel seat: a model, its sampling, and an optional system prompt before the conversation."""

    model: Name
    system: str | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None


class Judge(ToolUser):
    """The model that compares the answers and writes the final one.

    `prompts` are texts of one's own in the place of ours; with `own_knowledge` it may add what no answer has. `then` are
    those that judge if it is dead, in order; a list of judges means the same.
    """

    model: Name
    temperature: Temperature | None = 0.0
    criteria: str | None = None
    analysis_max_tokens: Annotated[int, Field(ge=16)] = 1024
    prompts: OwnPrompts = OwnPrompts()
    own_knowledge: bool = False
    then: Annotated[tuple[Annotated["Judge", BeforeValidator(_entry)], ...], Field(max_length=MAX_MEMBERS)] = ()

    @model_validator(mode="after")
    def _is_one_list(self) -> "Judge":
        if any(each.then for each in self.then):
            raise ValueError("a judge that judges in another's place has no `then` of its own: write one list")
        if len({each.model for each in self.in_order}) <= len(self.then):
            raise ValueError("a model stands twice in the list of judges")
        return self

    @property
    def in_order(self) -> tuple["Judge", ...]:
        """This one, and those that judge if it is dead."""
        return (self, *self.then)


def _named(model: type[BaseModel]) -> BeforeValidator:
    """Accepts a bare model name as an entry with nothing else set."""
    return BeforeValidator(_entry, json_schema_input_type=str | model)


JudgeOrJudges = Annotated[Judge, BeforeValidator(_first_of, json_schema_input_type=str | Judge | list[str | Judge])]
Seats = Annotated[tuple[Annotated[Member, _named(Member)], ...], Field(min_length=1, max_length=MAX_MEMBERS)]


class GateConfig(Frozen):
    """Sends trivial requests to `model` alone. `rules`: short, single-turn, plain text; `judge`: the judge decides.

    With mode `off`, only a preset or a request turns it on.
    """

    mode: GateMode
    model: Name
    max_words: Annotated[int, Field(ge=1)] = 4


class Preset(EnsembleOptions):
    """Named changes to an ensemble, selected by a request's `preset`."""

    panel: Seats | None = None
    judge: JudgeOrJudges | None = None
    gate: GateMode | None = None


class Ensemble(EnsembleOptions):
    """A panel, a judge and their options, called by clients as `cappella/<name>`.

    The judge may be left out where no run needs one (a vote, a `select` by other evidence): the first member stands for it.
    `examples` are questions to try: the page shows all, `serve` prints the first. `notice` is what people should know of
    the ensemble before they trust it; the page, `serve` and `cappella chat` show it.
    """

    model_config = ConfigDict(json_schema_extra=_judge_may_be_left_out)

    panel: Seats
    judge: JudgeOrJudges
    gate: GateConfig | None = None
    tools: bool = False
    presets: Mapping[Name, Preset] = {}
    allow_overrides: bool = True
    examples: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=MAX_EXAMPLES)
    ] = ("Say hello.",)
    notice: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _first_member_for_a_judge_that_nobody_needs(
        cls, data: Any, handler: ModelWrapValidatorHandler["Ensemble"]
    ) -> "Ensemble":
        if not isinstance(data, Mapping) or data.get("judge") is not None or data.get("panel") is None:
            return handler(data)
        # Under any name of a judge a mistake of the panel is told as one of the panel.
        tried = handler({**data, "judge": "anyone"})
        if any(needs_judge(tried.options_of(part)) and (part is tried or not part.judge) for part in tried.parts):
            # Which says that it is missing.
            return handler(data)
        stands_in = handler({**data, "judge": tried.panel[0].model})
        stands_in.model_fields_set.discard("judge")
        return stands_in

    @model_validator(mode="after")
    def _panels_fit(self) -> "Ensemble":
        for preset in self.parts:
            quorum, size = preset.quorum, sum(seat.samples for seat in self.seats_of(preset))
            if size > MAX_ANSWERS:
                raise ValueError(f"a panel that gives {size} answers is too large: at most {MAX_ANSWERS} have a letter")
            own = {**self.given(), **preset.given()}
            if own.get("extract") == "regex" and not own.get("extract_pattern"):
                raise ValueError("extract: regex needs a pattern: set extract_pattern")
            if quorum is not None and quorum > size:
                raise ValueError(f"quorum {quorum} is larger than the panel of {size}")
        self._require_known_weights({seat.model for preset in self.parts for seat in self.seats_of(preset)})
        return self

    def _require_known_weights(self, models: AbstractSet[str]) -> None:
        """Raises ValueError for a weight of nobody on a panel."""
        for part in self.parts:
            for name in part.weights or {}:
                if name.partition("#")[0] not in models:
                    raise ValueError(f"weights has {name!r}, which is on no panel: name a model or a seat of one")

    @property
    def parts(self) -> Sequence["Preset | Ensemble"]:
        """Itself and its presets."""
        return (self, *self.presets.values())

    @property
    def seats(self) -> tuple[Seat, ...]:
        return self.seats_of(self)

    def seats_of(self, preset: "Preset | Ensemble") -> tuple[Seat, ...]:
        """The seats of a preset: its own panel, or the ensemble's."""
        members = preset.panel or self.panel
        samples = most_samples({**self.given(), **preset.given()}.get("samples", 1)) or 1
        return seats(
            Seat(m.model, m.model, m.sampling, m.system, m.samples or samples, None, m.seat_tools) for m in members
        )

    @property
    def models(self) -> Iterator[tuple[Path_, str]]:
        """Every model named in the panels and judges, with its place in the config."""
        parts: list[tuple[Path_, Preset | Ensemble]] = [((), self)]
        parts += [(("presets", name), preset) for name, preset in self.presets.items()]
        for where, part in parts:
            yield from (((*where, "panel", seat), member.model) for seat, member in enumerate(part.panel or ()))
            if part.judge:
                yield from (((*where, "judge"), judge.model) for judge in part.judge.in_order)

    @property
    def helpers(self) -> Iterator[str]:
        """The models whose scores or embeddings of answers count, here and in the presets."""
        named = (model for part in self.parts for model in (part.select.reward, part.agreement.model))
        return (model for model in named if model is not None)

    def options_of(self, preset: "Preset | Ensemble") -> EnsembleOptions:
        """The options of a preset, with the ensemble's where it sets none."""
        return EnsembleOptions(**{**self.given(), **preset.given()})

    def judge_of(self, part: "Preset | Ensemble") -> Judge | None:
        """The judge that runs with a preset, or with none, may ask; None where they ask no judge."""
        return part.judge or self.judge if may_ask_judge(self.options_of(part), self._gate_of(part)) else None

    def planned_judge_of(self, part: "Preset | Ensemble") -> Judge | None:
        """The same, as a plan makes room for it: a member that decides ties where no judge is set has room as a member."""
        is_set = "judge" in self.model_fields_set or (isinstance(part, Preset) and part.judge is not None)
        asks = is_set or asks_judge_without_tie(self.options_of(part), self._gate_of(part))
        return self.judge_of(part) if asks else None

    def _gate_of(self, part: "Preset | Ensemble") -> str | None:
        if self.tools and self.options_of(part).tools_panel == "judge":
            return "tools"
        return (part.gate if isinstance(part, Preset) else None) or (self.gate.mode if self.gate else None)

    def quorum_of(self, answers: int) -> int:
        """The quorum for at most this many answers."""
        return min(self.quorum or 2, answers)

    def can_answer(self, up: Sequence[str]) -> bool:
        """Whether enough members for the quorum are up, and a judge if it counts on one."""
        answers = sum(seat.samples for seat in self.seats if seat.model in up)
        has_judge = not counts_on_judge(self) or any(judge.model in up for judge in self.judge.in_order)
        return has_judge and answers >= self.quorum_of(sum(seat.samples for seat in self.seats))


def seats(parts: Iterable[Seat]) -> tuple[Seat, ...]:
    """The same seats, each named after its model; the model's second seat is `name#2`, and so on."""
    counts = Counter[str]()
    out = []
    for seat in parts:
        counts[seat.model] += 1
        count = counts[seat.model]
        out.append(replace(seat, name=seat.model if count == 1 else f"{seat.model}#{count}"))
    return tuple(out)
