"""Picks the member's answer that is returned when the judge fails."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cappella.config.options import Settings
from cappella.ensemble.agreement import work
from cappella.ensemble.run import Answer
from cappella.ensemble.structured import formats
from cappella.ensemble.weights import priors
from cappella.errors import JudgeFailed
from cappella.threads import off_loop_if_large
from cappella.types import OutputFormat


async def fallback_answer(
    answers: Sequence[Answer], output_format: OutputFormat | None, stop: Sequence[str], reason: str, settings: Settings
) -> Answer:
    """The best member's answer in the requested format. Raises JudgeFailed, with the judge's `reason`, without one."""
    valid = [a for a in answers if not a.tool_calls and await formats.violation(output_format, a.content) is None]
    usable = valid or ([] if output_format else list(answers))
    if not usable:
        raise JudgeFailed(f"The judge failed ({reason}), and no member's answer has the requested format.")
    return await off_loop_if_large(work(usable), best_answer, usable, stop, priors(usable, settings))


AGREEMENT_WEIGHT = 2.0
"""The log-odds of an answer that says the same as all others; measured with small judges on HumanEval."""


def best_answer(answers: Sequence[Answer], stop: Sequence[str], prior: Mapping[str, float] | None = None) -> Answer:
    """The answer most similar to the others, with its member's `prior` in log-odds, truncated at the `stop` texts.

    An answer that ended by itself goes before one cut off at its token limit; ties go to the first seat.
    """
    alike, prior = overlap(answers), prior or {}

    def merit(index: int) -> tuple[bool, float, int]:
        name = answers[index].name
        evidence = AGREEMENT_WEIGHT * alike[index] + prior.get(name, 0.0)
        return answers[index].finish_reason != "length", evidence, -index

    return cut_at_stop(answers[max(range(len(answers)), key=merit)], stop)


def overlap(answers: Sequence[Answer], weights: Sequence[float] | None = None) -> list[float]:
    """How similar each is to the others, from 0 to 1: the mean Jaccard index of their words, weighted by the others."""
    words = [{word[0] for word in re.finditer(r"\w+", answer.content.lower())} for answer in answers]
    weights = weights or [1.0] * len(answers)

    def alike(index: int) -> float:
        others = [number for number in range(len(words)) if number != index]
        own = words[index]
        shared = sum(weights[i] * len(own & words[i]) / max(1, len(own | words[i])) for i in others)
        return shared / (sum(weights[i] for i in others) or 1.0)

    return [alike(index) for index in range(len(answers))]


def cut_at_stop(answer: Answer, stop: Sequence[str]) -> Answer:
    """The answer up to the first of the caller's `stop` texts, which members are not given."""
    cuts = [(position, text) for text in stop if (position := answer.content.find(text)) >= 0]
    if not cuts:
        return answer
    position, text = min(cuts)
    return replace(answer, content=answer.content[:position], finish_reason="stop", stop_sequence=text)
