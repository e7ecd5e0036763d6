"""What a round amounts to, from its answers and failures alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum
from cappella.ensemble.fallback import best_answer, require_quorum, status
from cappella.ensemble.run import Answer, Call, Failure, Panel
from cappella.errors import CappellaError, ContextLengthExceeded
from cappella.types import Usage


def answer(content: str, name: str = "ann", finish_reason: str = "stop") -> Answer:
    return Answer(name, content, finish_reason, Call("panel", name, Usage(), 0.0, None, 0.1))


def failure(name: str, reason: str) -> Failure:
    return Failure(name, reason, f"it was {reason}", 502)


@pytest.mark.parametrize(
    ("answered", "reasons", "kind", "says"),
    [
        (1, ["engine_broke", "engine_broke"], InsufficientQuorum, "1 of 3 .* quorum is 2.*m0: it was engine_broke"),
        (1, ["context_length_exceeded", "engine_broke"], ContextLengthExceeded, r"context of m0\."),
        (0, ["context_length_exceeded", "engine_broke", "cut"], InsufficientQuorum, "0 of 3"),
        (1, ["deadline", "engine_broke"], DeadlineExceeded, "late: m0"),
        (0, ["deadline", "deadline"], DeadlineExceeded, "late: m0, m1"),
        (0, ["deadline", "engine_broke"], InsufficientQuorum, "0 of 2"),
    ],
)
def test_too_few_answers_are_an_error_that_says_what_would_have_been_enough(
    answered: int, reasons: list[str], kind: type[CappellaError], says: str
) -> None:
    panel = Panel([answer("x")] * answered, [failure(f"m{i}", reason) for i, reason in enumerate(reasons)])
    with pytest.raises(kind, match=says):
        require_quorum(panel, 2)


def test_a_met_quorum_is_no_error_however_many_failed() -> None:
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
    panel = Panel([answer("x")] * answers, [failure("m", "cut")] * failures)
    assert status([panel], panel.answers, failure_reason) == expected


def test_the_best_answer_is_the_one_most_like_the_others() -> None:
    answers = [answer("it is red"), answer("the sky is blue"), answer("The sky is blue!"), answer("no idea")]
    assert best_answer(answers, ()) is answers[1]


def test_an_answer_that_was_cut_short_stands_in_only_for_want_of_a_whole_one() -> None:
    cut, other = answer("the sky is", finish_reason="length"), answer("green")
    assert best_answer([cut, cut, other], ()) is other
    assert best_answer([cut], ()) is cut


def test_the_callers_stop_words_hold_for_the_stand_in() -> None:
    assert best_answer([answer("one STOP two END")], ("END", "STOP")).content == "one "


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_the_best_answer_is_always_one_of_them(texts: list[str]) -> None:
    answers = [answer(text) for text in texts]
    assert best_answer(answers, ()) in answers
