"""The values that run options may have. Imports only the standard library, so that the command line starts fast."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]
"""A JSON object."""

Strategy = Literal["synthesize", "select", "vote", "debate"]


class StrategyTraits(NamedTuple):
    """What is known of a strategy without its code: `summary` describes it in a menu.

    The judge either writes the final answer, after its analysis (`judge_writes`), or only chooses among the members' answers.
    """

    summary: str
    judge_writes: bool


STRATEGIES: Mapping[Strategy, StrategyTraits] = {
    "synthesize": StrategyTraits("Synthesize: the judge writes one answer from all", judge_writes=True),
    "select": StrategyTraits("Select: the judge picks one answer, unchanged", judge_writes=False),
    "vote": StrategyTraits("Vote: the most frequent answer wins", judge_writes=False),
    "debate": StrategyTraits("Debate: the members revise until they agree, else the judge writes", judge_writes=True),
}
Task = Literal["generate", "embed", "rerank", "reward"]


class TaskTraits(NamedTuple):
    """What a model with this task does, in words, and whether it may judge by a score for each answer (`scores_answers`)."""

    does: str
    scores_answers: bool = False


TASKS: Mapping[Task, TaskTraits] = {
    "generate": TaskTraits("writes answers"),
    "embed": TaskTraits("gives embeddings"),
    "rerank": TaskTraits("ranks documents for a query", scores_answers=True),
    "reward": TaskTraits("scores answers", scores_answers=True),
}
AnalysisMode = Literal["before", "alongside", "off"]
EarlyExit = Literal["off", "equal", "judge"]
Extractor = Literal["auto", "number", "choice", "boxed", "json", "code", "regex", "last_line", "text"]
Evidence = Literal["judge", "agreement", "certainty", "reward", "weights"]
AgreementMode = Literal["words", "judge", "embedding"]
Confidence = Literal["low"]
AnswerOrder = Literal["shuffled", "arrival"]
AnswersExceed = Literal["shorten", "fold"]
ProgressMode = Literal["off", "reasoning"]
GateMode = Literal["off", "rules", "judge"]
ToolsPanel = Literal["all", "judge"]
ToolChoice = Literal["auto", "required"]
