"""What happens in a run, as it happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cappella.ensemble.run import Analysis, Answer, Failure, GateDecision
from cappella.types import Chunk


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`panel` holds the names of the answers to come."""

    run_id: str
    panel: Sequence[str]
    judge: str


@dataclass(frozen=True, slots=True)
class Gated:
    decision: GateDecision


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """Sent before every round after the first."""

    number: int


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    name: str
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class AnswerDone:
    answer: Answer


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The panel's own ranking, best first."""

    ranking: Sequence[str]


@dataclass(frozen=True, slots=True)
class AnalysisStarted:
    """`labels` says whom the letters in its deltas stand for."""

    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AnalysisDelta:
    """A piece of the judge's JSON: what comes of it, if it turns out to be whole, AnalysisDone says."""

    text: str


@dataclass(frozen=True, slots=True)
class AnalysisDone:
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class FinalDelta:
    """A piece of the final answer: text, reasoning, tool calls."""

    chunk: Chunk


Event = (
    RunStarted
    | Gated
    | RoundStarted
    | AnswerDelta
    | AnswerDone
    | AnswerFailed
    | Reviewed
    | AnalysisStarted
    | AnalysisDelta
    | AnalysisDone
    | FinalDelta
)
Emit = Callable[[Event], None]
