"""Quorum, status and fallback answer, from the answers and failures of a round alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum
from cappella.ensemble.fallback import best_answer
from cappella.ensemble.pipeline import run_status
from cappella.ensemble.quorum import require_quorum
from cappella.ensemble.run import Answer, Call, Failure, Panel
from cappella.errors import CappellaError, ContextLengthExceeded
from cappella.types import Usage


def answer(content: str, name: str = "ann", finish_reason: str = "stop") -> Answer:
    return Answer(name, content, finish_reason, Call("panel", name, Usage(), 0.0, None, 0.1))


def failure(name: str, reason: str) -> Failure:
    return Failure(name, reason, f"it was {reason}", 502)


@pytest.mark.parametrize(
    ("answered", "reasons", "kind", "message"),
    [
        (1, ["engine_broke", "engine_broke"], InsufficientQuorum, "1 of 3 .* quorum is 2.*m0: it was engine_broke"),
        (1, ["context_length_exceeded", "engine_broke"], ContextLengthExceeded, r"context of m0\."),
        (
            0,
            ["context_length_exceeded", "engine_broke", "quorum_unreachable"],
            ContextLengthExceeded,
            r"context of m0\.",
        ),
        (0, ["context_length_exceeded", "engine_broke", "engine_broke"], InsufficientQuorum, "0 of 3"),
        (1, ["deadline", "engine_broke"], DeadlineExceeded, "late: m0"),
        (0, ["deadline", "deadline"], DeadlineExceeded, "late: m0, m1"),
        (0, ["deadline", "engine_broke"], InsufficientQuorum, "0 of 2"),
    ],
)
def test_below_the_quorum_the_error_names_the_cause(
    answered: int, reasons: list[str], kind: type[CappellaError], message: str
) -> None:
    panel = Panel([answer("x")] * answered, [failure(f"m{i}", reason) for i, reason in enumerate(reasons)])
    with pytest.raises(kind, match=message):
        require_quorum(panel, 2)


def test_a_met_quorum_is_no_error_whatever_else_failed() -> None:
    require_quorum(Panel([answer("x")] * 2, [failure("m", "deadline")] * 5), 2)


@pytest.mark.parametrize(
    ("answers", "failures", "failure_reason", "expected"),
    [
        (2, 0, None, "ok"),
        (2, 1, None, "degraded"),
        (2, 0, "deadline", "degraded"),
        (1, 0, None, "single"),
        (1, 1, None, "single"),
        (1, 0, "deadline", "degraded"),
    ],
)
def test_status(answers: int, failures: int, failure_reason: str | None, expected: str) -> None:
    panel = Panel([answer("x")] * answers, [failure("m", "quorum_unreachable")] * failures)
    assert run_status([panel], panel.answers, failure_reason) == expected


def test_the_best_answer_is_the_most_similar_to_the_others() -> None:
    answers = [answer("it is red"), answer("the sky is blue"), answer("The sky is blue!"), answer("no idea")]
    assert best_answer(answers, ()) is answers[1]


def test_a_truncated_answer_is_the_best_only_without_a_complete_one() -> None:
    truncated, complete = answer("the sky is", finish_reason="length"), answer("green")
    assert best_answer([truncated, truncated, complete], ()) is complete
    assert best_answer([truncated], ()) is truncated


def test_the_best_answer_ends_at_the_callers_stop_texts() -> None:
    assert best_answer([answer("one STOP two END")], ("END", "STOP")).content == "one "


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_the_best_answer_is_always_one_of_them(texts: list[str]) -> None:
    answers = [answer(text) for text in texts]
    assert best_answer(answers, ()) in answers
