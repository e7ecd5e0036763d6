"""Points for one answer: the judge reads it alone, so that neither its place nor the others sway it."""

from collections.abc import Sequence
from typing import Any

from cappella.ensemble import prompts
from cappella.ensemble.between import extend
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.grading_texts import GRADE, REASON_CHARS, criteria_lines, grades_schema, key
from cappella.ensemble.judge_calls import JudgeCalls, Question
from cappella.ensemble.judgement import Criterion, Grade, JudgeTask
from cappella.ensemble.structured.json_value import parse_json
from cappella.errors import EngineUnusable
from cappella.types import OutputFormat

TOKENS_OF_A_GRADE = REASON_CHARS + 32
"""A token has a character at least, but for letters of few scripts; a reason is mostly far shorter."""


async def grade(calls: JudgeCalls, candidate: Candidates, task: JudgeTask) -> Sequence[Grade]:
    """The grades of the one answer in `candidate`, by each criterion. Raises EngineError."""
    rubric = task.graded_by
    schema = {"name": "grades", "schema": grades_schema(rubric)}
    output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": schema})
    question = Question("score", output_format, TOKENS_OF_A_GRADE * len(rubric))
    # A rubric's own words stand in it already.
    criteria = None if task.rubric else calls.settings.criteria
    lines = prompts.broken_up(criteria_lines(rubric))
    instruction = f"{GRADE}\n{lines}{prompts.criteria_note(criteria)}"
    read = await calls.read("scores", candidate, question.max_tokens, lines + (criteria or ""))
    fenced = prompts.fence(read.texts, read.nonce, calls.settings.judge_texts)
    messages = extend(calls.prompt.messages, [fenced, instruction])
    return await calls.ask(question, messages, read.nonce, lambda call: grades_of(call, rubric))


def grades_of(call: EngineCall, rubric: Sequence[Criterion]) -> list[Grade]:
    """The grades in a reply. Raises EngineUnusable for another form, and for points that there are not."""
    try:
        reply = parse_json(call.text)
    except ValueError as error:
        raise EngineUnusable(f"the judge's points are not JSON: {error}", "judge_not_valid_json") from error
    try:
        return [_grade(reply[key(i)], criterion) for i, criterion in enumerate(rubric)]
    except (LookupError, TypeError, ValueError) as error:
        message = f"the judge's points do not match their schema: {error!r}"
        raise EngineUnusable(message, "judge_schema_mismatch") from error


def _grade(given: Any, criterion: Criterion) -> Grade:
    points, reason = given["points"], given["reason"]
    if not isinstance(reason, str) or isinstance(points, bool) or not isinstance(points, int):
        raise TypeError(f"points {points!r}, reason {str(reason)[:60]!r}")
    if not 0 <= points <= criterion.points:
        raise ValueError(f"{points} of {criterion.points} points")
    return Grade(criterion, points, reason.strip())
