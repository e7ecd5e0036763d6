"""Picks the member's answer that is returned when the judge fails."""

import re
from collections.abc import Sequence
from dataclasses import replace

from cappella.ensemble.run import Answer
from cappella.ensemble.structured import formats
from cappella.errors import JudgeFailed
from cappella.types import OutputFormat


async def fallback_answer(
    answers: Sequence[Answer], output_format: OutputFormat | None, stop: Sequence[str], reason: str
) -> Answer:
    """The best member's answer in the requested format. Raises JudgeFailed, with the judge's `reason`, without one."""
    valid = [a for a in answers if not a.tool_calls and await formats.violation(output_format, a.content) is None]
    usable = valid or ([] if output_format else list(answers))
    if not usable:
        raise JudgeFailed(f"The judge failed ({reason}), and no member's answer has the requested format.")
    return best_answer(usable, stop)


def best_answer(answers: Sequence[Answer], stop: Sequence[str]) -> Answer:
    """The answer most similar to the others (mean Jaccard index of their words), truncated at the `stop` texts.

    An answer that ended by itself goes before one cut off at its token limit; ties go to the first seat.
    """
    words = [set(re.findall(r"\w+", answer.content.lower())) for answer in answers]

    def similarity(index: int) -> float:
        others = [other for number, other in enumerate(words) if number != index]
        return sum(len(words[index] & other) / max(1, len(words[index] | other)) for other in others)

    best = max(range(len(answers)), key=lambda i: (answers[i].finish_reason != "length", similarity(i), -i))
    return cut_at_stop(answers[best], stop)


def cut_at_stop(answer: Answer, stop: Sequence[str]) -> Answer:
    """The answer up to the first of the caller's `stop` texts, which members are not given."""
    cuts = [(position, text) for text in stop if (position := answer.content.find(text)) >= 0]
    if not cuts:
        return answer
    position, text = min(cuts)
    return replace(answer, content=answer.content[:position], finish_reason="stop", stop_sequence=text)
