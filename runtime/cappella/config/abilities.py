"""Checks that a model's server can do what a seat or a judge needs, before any call is made."""

from typing import Protocol

from cappella.types import Capabilities, Sampling, SamplingExtensions
from cappella.vocabulary import STRATEGIES, TASKS, AnalysisMode, EarlyExit, Strategy, Task


class JudgeOptions(Protocol):
    """The options that decide which calls the judge gets."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def analysis(self) -> AnalysisMode: ...
    @property
    def early_exit(self) -> EarlyExit: ...


def judge_lacks(capabilities: Capabilities, options: JudgeOptions, gate: str | None = None) -> tuple[str, str] | None:
    """A problem and a hint if the judge's server cannot do what the options need; else None."""
    if not capabilities.writes:
        return _scorer_lacks(capabilities.task, options, gate)
    cannot_choose = "its server does not support both structured_outputs and logprobs"
    judge_writes = STRATEGIES[options.strategy].judge_writes
    if not judge_writes and not (capabilities.extensions and capabilities.logprobs):
        return f"strategy {options.strategy} has the judge choose, and {cannot_choose}", "Use strategy: synthesize"
    if (options.early_exit == "judge" or gate == "judge") and not capabilities.extensions:
        what = "gate" if gate == "judge" else "early_exit"
        return f"{what}: judge has it choose, and {cannot_choose}", f"Remove {what}: judge"
    if judge_writes and options.analysis != "off" and not capabilities.json_schema:
        problem = "the analysis is JSON, and its server is not declared to support json_schema"
        return problem, "Set analysis: off, or json_schema: true on the model if its server supports it"
    return None


def _scorer_lacks(task: Task, options: JudgeOptions, gate: str | None) -> tuple[str, str] | None:
    """The same for a model that does not write: if it scores answers, it can do what `select` needs, and nothing else."""
    scorers = " or ".join(name for name, traits in TASKS.items() if traits.scores_answers)
    if not TASKS[task].scores_answers:
        return f"a model with task: {task} scores no answers", f"Use a model that writes, or one with task: {scorers}"
    if options.strategy != "select":
        problem = f"a model with task: {task} gives each answer a score, and strategy {options.strategy} needs more"
        return problem, "Use strategy: select, or a judge that writes"
    if options.early_exit == "judge" or gate == "judge":
        what = "gate" if gate == "judge" else "early_exit"
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
