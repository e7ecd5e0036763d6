"""What a panel's round amounts to: enough or not, sound or not, and which answer stands in for the judge's."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum
from cappella.ensemble.run import Answer, Panel, Status
from cappella.ensemble.structured import formats
from cappella.errors import ContextLengthExceeded, EngineContextExceeded, EngineOverBudget, JudgeFailed, RequestError
from cappella.types import Form

# Reasons of failures that are the request's own fault, and the error for a round that failed by them.
_REQUESTS_FAULT: Mapping[str, Callable[[str], RequestError]] = {
    EngineContextExceeded.reason: lambda names: ContextLengthExceeded(
        f"The prompt is longer than the context of {names}."
    ),
    EngineOverBudget.reason: lambda names: RequestError(
        f"max_total_tokens is too little for this prompt and {names}.", "fusion.max_total_tokens", "budget_too_small"
    ),
}


def require_quorum(panel: Panel, quorum: int) -> None:
    """Raise the error that says why too few answered, if too few did."""
    if len(panel.answers) >= quorum:
        return
    for reason, error in _REQUESTS_FAULT.items():
        names = [f.name for f in panel.failures if f.reason == reason]
        if names and len(panel.answers) + len(names) >= quorum:
            raise error(", ".join(names))
    late = [f.name for f in panel.failures if f.reason == "deadline"]
    answered = f"{len(panel.answers)} of {len(panel.answers) + len(panel.failures)} members answered"
    if len(panel.answers) + len(late) >= quorum:
        message = f"{answered} in time, the quorum is {quorum}; late: {', '.join(late)}."
        raise DeadlineExceeded(message, panel.answers, panel.failures)
    causes = "; ".join(f"{f.name}: {f.error}" for f in panel.failures)
    raise InsufficientQuorum(f"{answered}, the quorum is {quorum}. {causes}", panel.answers, panel.failures)


def status(rounds: Sequence[Panel], answers: Sequence[Answer], failure_reason: str | None) -> Status:
    """`single` is a run whose judge had only one answer to look at. Stragglers are cut by choice: nothing failed."""
    if failure_reason:
        return "degraded"
    if len(answers) == 1:
        return "single"
    return "degraded" if any(f.reason != "straggler" for panel in rounds for f in panel.failures) else "ok"


async def stand_in(answers: Sequence[Answer], form: Form | None, stop: Sequence[str], reason: str) -> Answer:
    """The answer that is returned where the judge gave none. Raises JudgeFailed if none has the caller's form."""
    fitting = [a for a in answers if not a.tool_calls and await formats.problem(form, a.content) is None]
    usable = fitting or ([] if form else list(answers))
    if not usable:
        raise JudgeFailed(f"The judge failed ({reason}), and no member's answer has the form that was asked for.")
    return best_answer(usable, stop)


def best_answer(answers: Sequence[Answer], stop: Sequence[str]) -> Answer:
    """The answer most like the others (mean Jaccard overlap of words), ended ones first, then by seat.

    `stop` holds for it as it would have held for the judge.
    """
    words = [set(re.findall(r"\w+", answer.content.lower())) for answer in answers]

    def likeness(index: int) -> float:
        others = [other for number, other in enumerate(words) if number != index]
        return sum(len(words[index] & other) / max(1, len(words[index] | other)) for other in others)

    best = max(range(len(answers)), key=lambda i: (answers[i].finish_reason != "length", likeness(i), -i))
    return cut_at_stop(answers[best], stop)


def cut_at_stop(answer: Answer, stop: Sequence[str]) -> Answer:
    """A member's answer as the caller's stop texts would have ended it."""
    cuts = [(position, mark) for mark in stop if (position := answer.content.find(mark)) >= 0]
    if not cuts:
        return answer
    position, mark = min(cuts)
    return replace(answer, content=answer.content[:position], finish_reason="stop", stop_sequence=mark)
