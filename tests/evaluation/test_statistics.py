"""Paired statistics, against values that are known."""

from random import Random

import pytest

from cappella.evaluation import statistics
from cappella.evaluation.asking import halves
from cappella.evaluation.data import Question
from cappella.evaluation.outcomes import Outcome, best_by_halves, majority, oracle


def test_mcnemar_is_the_exact_sign_test() -> None:
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 5) == 1.0
    assert statistics.mcnemar(6, 0) == pytest.approx(2 / 64)
    assert statistics.mcnemar(1, 8) == statistics.mcnemar(8, 1) == pytest.approx(20 / 512)
    assert statistics.mcnemar(0, 5000) == 0.0


def test_an_interval_holds_the_mean_is_seeded_and_narrows_with_more_questions() -> None:
    few, many = statistics.interval([0.0, 1.0] * 10), statistics.interval([0.0, 1.0] * 500)
    assert few
    assert many
    assert few.low < few.mean == 0.5 < few.high
    assert many.high - many.low < few.high - few.low
    assert statistics.interval([0.0, 1.0] * 10) == few
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.25 / 1000) ** 0.5, rel=0.15)


def test_questions_that_one_of_two_did_not_answer_are_left_out() -> None:
    compared = statistics.compare([True, None, True, False], [False, True, True, None])
    assert compared
    assert (compared.n, compared.wins, compared.losses, compared.difference.mean) == (2, 1, 0, 0.5)
    assert (compared.ours, compared.theirs) == (1.0, 0.5)
    assert statistics.compare([None], [True]) is None


def test_holms_correction_never_orders_probabilities_anew() -> None:
    assert statistics.holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


def test_even_letters_are_likely_and_uneven_ones_are_not() -> None:
    assert statistics.uneven([50, 51, 49], [50, 50, 50]) > 0.5
    assert statistics.uneven([100, 25, 25], [50, 50, 50]) < 0.001
    assert statistics.uneven([3], [3]) == 1.0


def test_nobody_is_chosen_by_the_questions_on_which_he_is_measured() -> None:
    """Members that guess look better than they are where the best is chosen on the same questions."""
    draw = Random(1)
    gained_by_peeking, gained_by_halves, n = 0.0, 0.0, 60
    for _ in range(40):
        members = {name: [Outcome(draw.random() < 0.5) for _ in range(n)] for name in "abcdef"}
        half_of = [i % 2 for i in range(n)]
        chosen = best_by_halves({name: list(row) for name, row in members.items()}, half_of)
        gained_by_halves += sum(members[name][i].right for i, name in enumerate(chosen)) / n - 0.5
        gained_by_peeking += max(sum(each.right for each in row) for row in members.values()) / n - 0.5
    assert gained_by_peeking / 40 > 0.05
    assert abs(gained_by_halves / 40) < 0.03


def test_halves_are_even_in_each_category_whatever_the_order() -> None:
    questions = [Question(str(i), [], category="ab"[i % 2]) for i in range(40)]
    half_of = halves(questions)
    assert sum(half_of[0::2]) == sum(half_of[1::2]) == 10
    turned = halves(questions[::-1])
    assert turned[::-1] == half_of


def test_a_majority_is_by_value_and_costs_what_all_answers_cost() -> None:
    answers = [
        Outcome(False, "1", False, 5, 2, 1.0),
        Outcome(True, "2", False, 5, 2, 3.0),
        Outcome(True, "2", False, 5, 2),
    ]
    voted = majority(answers)
    assert voted
    assert (voted.right, voted.value, voted.tokens, voted.seconds) == (True, "2", 21, 3.0)
    unread = majority([Outcome(False, None, True), Outcome(True, "1")])
    assert unread
    assert unread.right
    assert majority([]) is None
    known = oracle(answers)
    assert known
    assert (known.right, known.tokens) == (True, 21)
