"""Run options, each declared once: its name, type, bounds, default and meaning.

An ensemble and its presets (config/ensembles.py), the `fusion` object of a request (gateway/formats/fields.py) and `Settings` take
them from here. A new option is one field here plus the code that uses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cappella.config.abilities import counts_on_judge, groups_by, may_ask_judge, needs_judge
from cappella.config.judge_seat import JudgeSeat
from cappella.config.seat_tools import SeatTools
from cappella.config.weighing import MAX_SAMPLES, Adaptive, Agreement, Selection
from cappella.extraction.extractors import MAX_PATTERN_CHARACTERS, usable_pattern
from cappella.types import Frozen, Positive, Sampling
from cappella.vocabulary import (
    AnalysisMode,
    AnswerOrder,
    AnswersExceed,
    EarlyExit,
    Extractor,
    GateMode,
    ProgressMode,
    Strategy,
    ToolsPanel,
)

MAX_MEMBERS = 8
MAX_ANSWERS = 26
"""The most answers of one round: those who read them know each by a letter."""

Seconds = Annotated[float, Field(gt=0)]
Grace = Annotated[float, Field(ge=0)] | Literal["never"]


@dataclass(frozen=True, slots=True)
class Seat:
    """One member of a panel. `name` is unique in the panel, even if a model has two seats.

    A request gets `samples` answers from it; `system` is a prompt before the conversation.
    """

    name: str
    model: str
    sampling: Sampling = Sampling()
    system: str | None = None
    samples: int = 1
    before: int | None = None
    """Where its samples are asked in portions: how many were asked before this one."""
    tools: SeatTools = SeatTools()

    @property
    def answer_names(self) -> list[str]:
        """The names of its answers: the seat's name, with `~1`, `~2` and so on if there are several."""
        if self.samples == 1 and self.before is None:
            return [self.name]
        return [f"{self.name}~{(self.before or 0) + i + 1}" for i in range(self.samples)]

    def portion(self, before: int, count: int) -> "Seat":
        """The seat with the next of its samples, which have seeds of their own."""
        if self.samples == 1:
            return self
        seed = self.sampling.seed
        sampling = self.sampling if seed is None else self.sampling.model_copy(update={"seed": seed + before})
        return replace(self, sampling=sampling, samples=min(count, self.samples - before), before=before)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A candidate that the request brings along: of the member `name`, or of nobody on the panel."""

    name: str
    content: str


Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_CHARACTERS), AfterValidator(usable_pattern)]
LogOdds = Annotated[float, Field(ge=-10, le=10)]


class EnsembleOptions(Frozen):
    """The options that an ensemble, a preset and a request may set.

    A source that does not set an option, or sets it to null, leaves it to the next: request, preset, ensemble, default.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    strategy: Strategy = "synthesize"
    """How the answers become the final one."""
    analysis: AnalysisMode = "before"
    """Whether the judge analyses the answers before it writes (and sees the analysis), alongside, or not at all."""
    quorum: Annotated[int, Field(ge=1, le=MAX_MEMBERS * MAX_SAMPLES)] | None = None
    """How many answers are enough; by default two, or all of a smaller panel."""
    grace_s: Grace | None = None
    """Seconds that stragglers may take after the quorum is met, or `never` to cut them; by default twice the time that
    the quorum took, and at least 5 s."""
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | Adaptive = 1
    """Answers per seat, in one engine call; or an object: `most` so many, and no more once the lead is `until` so sure."""
    layers: Annotated[int, Field(ge=1, le=4)] = 1
    """Rounds of the panel; from the second on, members read the answers of the previous round."""
    review: bool = False
    """Whether members rank the answers of others, for the judge to see."""
    extract: Extractor = "auto"
    """The value that counts of each answer, for `vote`, agreement and early exit: by an extractor, or `auto`."""
    extract_pattern: Pattern | None = None
    """The pattern of `extract: regex`: its first group, or else all of it, where it matches last."""
    select: Selection = Selection()
    """The evidence by which `select` chooses: the judge, agreement, certainty, a reward model, weights."""
    agreement: Agreement = Agreement()
    """By what answers in free text say the same, for `vote` and `select`: their words, the judge, or an embedding."""
    weights: Mapping[str, LogOdds] | None = None
    """How far to trust each member, by its name or its model's, as log-odds of being right; `cappella eval` measures them."""
    early_exit: EarlyExit = "off"
    """Whether agreeing answers skip the judge: those of one value (see `extract`), or those that the judge finds to agree."""
    debias: bool = False
    """Whether the judge chooses once for each order in which every answer stands in every place once."""
    show_reasoning: bool = False
    """Whether the judge sees the members' reasoning."""
    formatted_panel: bool = False
    """Whether the requested output format applies to the members too, and not only to the final answer."""
    answer_order: AnswerOrder = "shuffled"
    """The order of the answers for the judge: shuffled by the seed, or by arrival, which allows more early prefill."""
    answers_exceed: AnswersExceed = "shorten"
    """What the judge does with answers that exceed its context together: it reads long ones without their middle, or it
    folds: it writes an answer from the first ones, then one from that and the next."""
    early_prefill: bool = True
    """Whether the judge prefills answers while the last member is still generating."""
    tools_panel: ToolsPanel = "all"
    """Who goes on from the results of tools: all, or the judge alone, so that an agent asks the panel once a request."""
    max_total_tokens: Positive | None = None
    """Limit on the prompt and completion tokens of all engine calls of a run; calls that would exceed it are not made."""
    progress: ProgressMode = "off"
    """Whether replies tell what the panel and the judge did as reasoning before the answer, for any client that shows such."""
    round_timeout_s: Seconds = 120.0
    """Seconds that a round may take."""
    deadline_s: Seconds = 300.0
    """Seconds that the whole run may take."""

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
    """Whether trivial requests go to one model (status `bypassed`), as decided by rules or by the judge."""
    criteria: Annotated[str, Field(min_length=1)] | None = None
    """What the judge should prefer."""

    def given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


@dataclass(frozen=True, slots=True)
class Gate:
    """The model that answers trivial requests alone, and how these are recognised. `max_words` is the rules' limit.

    In the mode `judge` the run's judge decides, unless `decider` names another model. In the mode `tools` the request goes
    on from the results of tools, and `model`, the judge, answers it alone (`tools_panel: judge`).
    """

    mode: Literal["rules", "judge", "tools"]
    model: str
    max_words: int = 0
    decider: str | None = None


class Settings(EnsembleOptions):
    """All settings of one run, resolved from request, preset, ensemble and defaults.

    `panel_watched`: the client receives the members' answers and the judge's analysis as they are generated.
    `next_judges` judge if the judge is dead, in order. `answers`: the candidates that the request brings along, under names
    of their own; each seat's are `samples` or none. `by_model`: a model was called as the judge of these, by its own name,
    which stands in `ensemble`. The judge may look up with `judge_tools`. Nobody is offered the tools of
    the servers in `withheld_tools`: the caller may not use them.
    """

    ensemble: str
    panel: tuple[Seat, ...]
    judge: str
    quorum: int
    seed: int
    answers: tuple[GivenAnswer, ...] = ()
    gate: Gate | None = None
    criteria: str | None = None
    judge_sampling: Sampling = Sampling()
    analysis_max_tokens: int = 1024
    judge_texts: Mapping[str, str] = {}
    own_knowledge: bool = False
    next_judges: tuple[JudgeSeat, ...] = ()
    preset: str | None = None
    panel_watched: bool = True
    by_model: bool = False
    judge_tools: SeatTools = SeatTools()
    withheld_tools: frozenset[str] = frozenset()

    @property
    def called(self) -> str:
        """The name that was called."""
        return self.ensemble if self.by_model else f"cappella/{self.ensemble}"

    @property
    def reward(self) -> str | None:
        """The model whose scores of the answers count."""
        return self.select.reward if self.strategy == "select" and "reward" in self.select.by else None

    @property
    def embedder(self) -> str | None:
        """The model whose embeddings say which answers say the same."""
        return self.agreement.model if groups_by(self) == "embedding" else None

    @property
    def helpers(self) -> list[str]:
        """The models beside panel and judge: those that score or embed the answers."""
        return [model for model in (self.reward, self.embedder) if model is not None]

    @property
    def own_texts(self) -> list[str]:
        """The operator's own texts in the prompts of all its judges."""
        return [
            text for texts in (self.judge_texts, *(seat.texts for seat in self.next_judges)) for text in texts.values()
        ]

    @property
    def needs_judge(self) -> bool:
        """Whether every run asks the judge."""
        return needs_judge(self)

    @property
    def counts_on_judge(self) -> bool:
        """Whether a run waits for the judge and wakes it, as nearly every one asks it."""
        return counts_on_judge(self)

    @property
    def may_ask_judge(self) -> bool:
        """Whether a run may ask the judge at all."""
        gate = self.gate.mode if self.gate and self.gate.decider in (None, self.judge) else None
        return may_ask_judge(self, gate)

    @property
    def asked_judge(self) -> str | None:
        """The judge; None where no run may ask it."""
        return self.judge if self.may_ask_judge else None

    @property
    def with_next_judge(self) -> "Settings":
        """The same, with the first of the `next_judges` as the judge."""
        seat, *rest = self.next_judges
        return self.judged_by(seat).model_copy(update={"next_judges": tuple(rest)})

    def judged_by(self, seat: JudgeSeat) -> "Settings":
        """The same with this judge, who also goes on from the results of tools where the judge does that alone."""
        judge = {"judge": seat.model, "judge_sampling": seat.sampling, "analysis_max_tokens": seat.analysis_max_tokens}
        own = {
            "criteria": seat.criteria,
            "judge_texts": seat.texts,
            "own_knowledge": seat.own_knowledge,
            "judge_tools": seat.tools,
        }
        gate = self.gate
        if gate and gate.mode == "tools":
            gate = replace(gate, model=seat.model)
        return self.model_copy(update={**judge, **own, "gate": gate})

    @property
    def answer_names(self) -> list[str]:
        """The names of all answers of the first round, those that the request brings along included."""
        asked = [name for seat in self.panel for name in seat.answer_names]
        return list(dict.fromkeys([*asked, *(answer.name for answer in self.answers)]))

    @property
    def first_seats(self) -> list[Seat]:
        """The seats to ask in the first round: those whose answers the request does not bring along."""
        given = {answer.name for answer in self.answers}
        return [seat for seat in self.panel if given.isdisjoint(seat.answer_names)]

    @property
    def asks_again(self) -> str | None:
        """The option for which members read the answers of the first round, if there is one."""
        again = {"strategy": self.strategy == "debate", "layers": self.layers > 1, "review": self.review}
        return next((name for name, is_set in again.items() if is_set), None)

    @property
    def called_seats(self) -> Sequence[Seat]:
        """The seats that may be called at any time of the run."""
        return self.panel if self.asks_again else self.first_seats
