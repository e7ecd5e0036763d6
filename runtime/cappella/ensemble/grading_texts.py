"""The judge's instruction to give points, and the JSON schema of its reply."""

from collections.abc import Sequence
from typing import Any

from cappella.ensemble.judgement import Criterion

GRADE = (
    "Now give points to the answer above, for each criterion from 0 to its most. Say first why, in one short sentence."
    " Judge by correctness, not by length or style. Reply in one JSON object. The criteria:"
)
REASON_CHARS = 300


def key(number: int) -> str:
    """The name of a criterion in the reply: its own may have any characters."""
    return f"criterion_{number + 1}"


def criteria_lines(rubric: Sequence[Criterion]) -> str:
    """The criteria with what they are about, each on a line of its own."""
    return "\n".join(f"- {key(i)} (0 to {each.points} points): {_told(each)}" for i, each in enumerate(rubric))


def rubric_text(rubric: Sequence[Criterion]) -> str:
    """The criteria in one text, with how much each weighs, for a judge that compares or chooses."""
    return "; ".join(f"{_told(each)} ({each.points} points)" for each in rubric)


def _told(criterion: Criterion) -> str:
    return f"{criterion.name}: {criterion.about}" if criterion.about else criterion.name


def grades_schema(rubric: Sequence[Criterion]) -> dict[str, Any]:
    """The schema; the reason stands before the points, so that it is no excuse for them."""
    each = {key(i): _grade(criterion.points) for i, criterion in enumerate(rubric)}
    return _record(each)


def _grade(points: int) -> dict[str, Any]:
    reason = {"type": "string", "maxLength": REASON_CHARS}
    return _record({"reason": reason, "points": {"type": "integer", "minimum": 0, "maximum": points}})


def _record(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
