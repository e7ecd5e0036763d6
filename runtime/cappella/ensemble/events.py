"""Events of a run, emitted as they happen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cappella.engines.waiting import WaitReason
from cappella.ensemble.citations import Cited
from cappella.ensemble.run import Analysis, Answer, Failure, GateDecision, ToolUse
from cappella.types import Chunk


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`panel` holds the names of the answers that one round can give; a gate decides first whether to ask it if `gated`.

    `judge` is None where the run asks none.
    """

    run_id: str
    panel: Sequence[str]
    judge: str | None
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Gated:
    """The gate has decided, or its model failed and the panel answers after all."""

    decision: GateDecision


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """Sent before every round after the first."""

    number: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call waits until its engine is awake: that of an answer's member, or of the judge or the gate's model, by `name`."""

    name: str
    reason: WaitReason


@dataclass(frozen=True, slots=True)
class Awake:
    """A call that was `Waiting` does so no longer; its engine is awake, or did not wake, which the call's end tells."""

    name: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class GraceStarted:
    """The quorum is met: after `grace_s` it is answered without these, which are the names of answers. See `Cut`."""

    names: Sequence[str]
    quorum_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """New text or reasoning of one member's answer."""

    name: str
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A member, by its answer's name, or the judge calls a tool. The text that it had generated so far is no part of its answer.

    `server` is None for a call that cannot be made.
    """

    name: str
    server: str | None
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolReturned:
    use: ToolUse


@dataclass(frozen=True, slots=True)
class AnswerDone:
    answer: Answer


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The members have ranked the answers: their names, best first."""

    ranking: Sequence[str]


@dataclass(frozen=True, slots=True)
class AnalysisStarted:
    """`labels` maps the letters in the deltas to the answers' names."""

    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AnalysisDelta:
    """A piece of the judge's JSON, with letters; the valid analysis, with names, follows as AnalysisDone."""

    text: str


@dataclass(frozen=True, slots=True)
class AnalysisDone:
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class FinalDelta:
    """A piece of the final answer: text, reasoning, tool calls or log-probabilities; `citations` are those in its text."""

    chunk: Chunk
    citations: Sequence[Cited] = ()


@dataclass(frozen=True, slots=True)
class CitationsRemoved:
    """The final answer cited sources by these handles that the run did not find: that was cut."""

    handles: Sequence[str]


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of the run's progress as text; sent only where `progress` asks for it."""

    text: str


Event = (
    RunStarted
    | Gated
    | RoundStarted
    | Waiting
    | Awake
    | GraceStarted
    | AnswerDelta
    | ToolCalled
    | ToolReturned
    | AnswerDone
    | AnswerFailed
    | Reviewed
    | AnalysisStarted
    | AnalysisDelta
    | AnalysisDone
    | FinalDelta
    | CitationsRemoved
    | Told
)
Emit = Callable[[Event], None]
