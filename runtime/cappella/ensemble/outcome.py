"""What a panel's round amounts to: enough or not, sound or not, and which answer stands in for the judge's."""

import re
from collections.abc import Sequence
from dataclasses import replace

from cappella.ensemble.panel import Panel
from cappella.errors import ContextLengthExceeded, DeadlineExceeded, EngineContextExceeded, InsufficientQuorum
from cappella.types import Answer, Status


def require_quorum(panel: Panel, quorum: int) -> None:
    """Raise the error that says why too few answered, if too few did."""
    if len(panel.answers) >= quorum:
        return
    too_long = [f.seat.name for f in panel.failures if f.reason == EngineContextExceeded.reason]
    late = [f.seat.name for f in panel.failures if f.reason == "deadline"]
    answered = f"{len(panel.answers)} of {len(panel.answers) + len(panel.failures)} members answered"
    if len(panel.answers) + len(too_long) >= quorum:
        raise ContextLengthExceeded(f"The prompt is longer than the context of {', '.join(too_long)}.")
    if len(panel.answers) + len(late) >= quorum:
        message = f"{answered} in time, the quorum is {quorum}; late: {', '.join(late)}."
        raise DeadlineExceeded(message, panel.answers, panel.failures)
    causes = "; ".join(f"{f.seat.name}: {f.error}" for f in panel.failures)
    raise InsufficientQuorum(f"{answered}, the quorum is {quorum}. {causes}", panel.answers, panel.failures)


def status(panel: Panel, failure_reason: str | None) -> Status:
    """`single` is a run whose judge had only one answer to look at."""
    if failure_reason:
        return "degraded"
    if len(panel.answers) == 1:
        return "single"
    return "degraded" if panel.failures else "ok"


def best_answer(answers: Sequence[Answer], stop: Sequence[str]) -> Answer:
    """The answer most like the others (mean Jaccard overlap of words), ended ones first, then by seat.

    `stop` holds for it as it would have held for the judge.
    """
    words = [set(re.findall(r"\w+", answer.content.lower())) for answer in answers]

    def likeness(index: int) -> float:
        others = [other for number, other in enumerate(words) if number != index]
        return sum(len(words[index] & other) / max(1, len(words[index] | other)) for other in others)

    best = max(range(len(answers)), key=lambda i: (answers[i].finish_reason == "stop", likeness(i), -i))
    cuts = [position for mark in stop if (position := answers[best].content.find(mark)) >= 0]
    return replace(answers[best], content=answers[best].content[: min(cuts)]) if cuts else answers[best]
