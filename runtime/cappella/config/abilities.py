"""Checks whether the judge is needed, and that a model's server can do what a seat or a judge needs, before any call is made."""

from typing import Protocol

from cappella.config.weighing import Agreement, Selection
from cappella.types import Capabilities, Sampling, SamplingExtensions
from cappella.vocabulary import STRATEGIES, TASKS, AgreementMode, AnalysisMode, EarlyExit, Strategy, Task


class JudgeOptions(Protocol):
    """The options that decide which calls the judge gets."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def analysis(self) -> AnalysisMode: ...
    @property
    def early_exit(self) -> EarlyExit: ...
    @property
    def select(self) -> Selection: ...
    @property
    def agreement(self) -> Agreement: ...


def needs_judge(options: JudgeOptions) -> bool:
    """Whether every run asks the judge: not a vote, which asks it at a tie, nor a `select` by other evidence alone."""
    chooses = options.strategy == "select" and "judge" in options.select.by
    return STRATEGIES[options.strategy].judge_writes or chooses


def counts_on_judge(options: JudgeOptions) -> bool:
    """Whether runs wait for the judge and wake it: each one asks it, or all but those whose answers have equal values do."""
    return needs_judge(options) or groups_by(options) == "judge"


def may_ask_judge(options: JudgeOptions, gate: str | None = None) -> bool:
    """Whether a run may ask the judge at all; `gate` is the mode of one that has the judge decide, or go on from tools."""
    return options.strategy == "vote" or asks_judge_without_tie(options, gate)


def asks_judge_without_tie(options: JudgeOptions, gate: str | None = None) -> bool:
    """The same, but for the ties of a vote."""
    return counts_on_judge(options) or options.early_exit == "judge" or gate in ("judge", "tools")


def groups_by(options: JudgeOptions) -> AgreementMode:
    """By what answers in free text are found to say the same; by their words where nothing hangs on it."""
    weighs = options.strategy == "select" and "agreement" in options.select.by
    return options.agreement.by if options.strategy == "vote" or weighs else "words"


def judge_lacks(capabilities: Capabilities, options: JudgeOptions, gate: str | None = None) -> tuple[str, str] | None:
    """A problem and a hint if the judge's server cannot do what the options need; else None."""
    if not may_ask_judge(options, gate):
        return None
    if not capabilities.writes:
        return _scorer_lacks(capabilities.task, options, gate)
    cannot_choose = "its server does not support both structured_outputs and logprobs"
    judge_writes = STRATEGIES[options.strategy].judge_writes
    chooses = options.strategy == "vote" or (needs_judge(options) and not judge_writes)
    if chooses and not (capabilities.extensions and capabilities.logprobs):
        return f"strategy {options.strategy} has the judge choose, and {cannot_choose}", "Use strategy: synthesize"
    if (options.early_exit == "judge" or gate == "judge") and not capabilities.extensions:
        what = "gate" if gate == "judge" else "early_exit"
        return f"{what}: judge has it choose, and {cannot_choose}", f"Remove {what}: judge"
    if judge_writes and options.analysis != "off" and not capabilities.json_schema:
        problem = "the analysis is JSON, and its server is not declared to support json_schema"
        return problem, "Set analysis: off, or json_schema: true on the model if its server supports it"
    if groups_by(options) == "judge" and not capabilities.json_schema:
        problem = "agreement: judge has it write JSON, and its server is not declared to support json_schema"
        return problem, "Remove agreement, or set json_schema: true on the model if its server supports it"
    return None


def _scorer_lacks(task: Task, options: JudgeOptions, gate: str | None) -> tuple[str, str] | None:
    """The same for a model that does not write: if it scores answers, it can do what `select` needs, and nothing else."""
    scorers = " or ".join(name for name, traits in TASKS.items() if traits.scores_answers)
    if not TASKS[task].scores_answers:
        return f"a model with task: {task} scores no answers", f"Use a model that writes, or one with task: {scorers}"
    if options.strategy != "select":
        problem = f"a model with task: {task} gives each answer a score, and strategy {options.strategy} needs more"
        return problem, "Use strategy: select, or a judge that writes"
    asking = {"gate": gate, "early_exit": options.early_exit, "agreement": groups_by(options)}
    if what := next((name for name, asks in asking.items() if asks == "judge"), None):
        return (
            f"{what}: judge asks it a question, and a model with task: {task} writes nothing",
            f"Remove {what}: judge",
        )
    return None


def cannot_write(capabilities: Capabilities) -> tuple[str, str] | None:
    """A problem and a hint if the model writes nothing, and so can be no member; else None."""
    if capabilities.writes:
        return None
    return f"a model with task: {capabilities.task} writes no answers", "Use a model without a task"


def seat_lacks(capabilities: Capabilities, sampling: Sampling, samples: int = 1) -> tuple[str, str] | None:
    """A problem and a hint if a seat's server cannot do this sampling; else None."""
    if capabilities.extensions:
        return None
    given = [name for name in SamplingExtensions.model_fields if getattr(sampling, name) is not None]
    if given:
        return f"its server has OpenAI's API, which has no {given[0]}", f"Remove {given[0]}"
    if samples > 1:
        return (
            "its server gives one answer per request",
            "Set samples: 1, and list the model several times in the panel",
        )
    return None
