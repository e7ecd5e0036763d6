"""The values by which answers are counted: in votes, early exits and debates."""

from collections.abc import Callable
from threading import current_thread, main_thread

import pytest

from cappella.config import Ensemble
from cappella.config.options import Options
from cappella.config.overrides import Overrides
from cappella.config.weighing import Selection
from cappella.ensemble import agreement, fallback
from cappella.ensemble.settings import resolve
from cappella.errors import RequestError
from cappella.extraction.extractors import Asked, read
from cappella.telemetry import trace
from cappella.types import Capabilities, Prompt
from cappella.vocabulary import Extractor
from support.fake_engines import MEMBERS, FakeEngines, choice_script, judge_script
from support.scripted_engine import Json, Script

OPTIONS = "Which is green?\nA) a stone\nB) a leaf\nC) the sky"
PROGRAM = "```python\ndef f(x):\n    return x + 1\n```"
SAME_PROGRAM = "Here it is:\n```python\ndef f(x):  # adds one\n  return x+1\n```\nIt adds one."


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


@pytest.mark.parametrize(
    ("question", "one", "same", "another", "extractor"),
    [
        ("What is 17*23?", "17*23 = 381.", "381", "It is 391.", "number"),
        ("What is 17*23?", "I add.\nThe answer is **1,381**", "1381", "391", "number"),
        ("What is 6*7?", "\\boxed{42}", "So 6*7 is 42.", "<answer>43</answer>", "number"),
        (OPTIONS, "The answer is (B).", "B", "A", "choice"),
        (OPTIONS, "a leaf", "B) a leaf", "I say C", "choice"),
        ("The capital?", "The answer is Paris.", "paris", "Bonn", "text"),
        ("Write f.", PROGRAM, SAME_PROGRAM, PROGRAM.replace("1", "2"), "code"),
    ],
)
async def test_answers_of_one_value_are_one_vote_however_they_say_it(
    fake_engines: FakeEngines, question: str, one: str, same: str, another: str, extractor: str
) -> None:
    let_members_answer(fake_engines, another, one, same)
    run = await fake_engines.run(question, strategy="vote")
    assert (run.content, run.verdict.votes) == (one, {"bob": ["bob", "cat"], "ann": ["ann"]})
    assert not fake_engines.servers["judge"].bodies
    told = trace.fusion(run, trace.FullDetail())["extracted"]
    assert told["by"] == extractor
    assert told["values"]["bob"] == told["values"]["cat"] != told["values"]["ann"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Version 3.10", "Version 3.1"),
        ("3.10", "3.1"),
        ("It is 10.0.0.1", "It is 10.0.0.10"),
        ("01234", "1234"),
        ("v2", "2"),
        ("5!", "5"),
        ("Ann has 3 apples", "Bob has 3 apples"),
        ("2024-01-02", "2024-01-03"),
        ("order 12-7, 4", "4"),
        ("`f(1)`", "`f(2)`"),
        ("It is 5 km, or 5000 m", "5"),
        ("$5", "€5"),
        ("It is $5", "It is £5"),
        ("\\boxed{€5}", "\\boxed{£5}"),
        ("about 5 km", "5 miles"),
        ("<answer>5 km</answer>", "<answer>5 miles</answer>"),
        ("I measured.\nIn all 5 km.", "I guessed.\nIn all 5 miles."),
    ],
)
def test_what_is_no_number_or_not_surely_one_is_compared_as_it_stands(one: str, other: str) -> None:
    for beside in ({}, {"a": "5", "b": "5"}):
        found = read({"one": one, "other": other, **beside}, "auto", Asked()).values
        assert found["one"] != found["other"]


@pytest.mark.parametrize(
    ("one", "same"),
    [("We walk.\nIn all **1,005 km**.", "in all 1005 km"), ("$1,000", "$1000"), ("That costs €5.", "that costs €5")],
)
def test_a_number_with_the_same_words_or_currency_is_one_value(one: str, same: str) -> None:
    found = read({"one": one, "same": same, "lone": "7"}, "auto", Asked()).values
    assert found["one"] == found["same"] != found["lone"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A) Paris\nB) 4", "A) Lyon\nB) 5"),
        ("A) Paris\nB) 4", "A) Lyon\nB) 4"),
        ("- **A)** Paris\n- **B)** 4", "- **A)** Lyon\n- **B)** 4"),
        ("A: Paris, B: 4", "A: Lyon, B: 4"),
        ("A) \\boxed{3}\nB) \\boxed{4}", "A) \\boxed{2}\nB) \\boxed{4}"),
    ],
)
def test_answers_to_the_parts_of_a_question_are_no_choice(one: str, other: str) -> None:
    asked = Asked.by("Answer both.\nA) The capital of France?\nB) What is 2+2?")
    found = read({"one": one, "other": other, "same": one, "short": "4"}, "auto", asked).values
    assert found["one"] == found["same"] != found["other"]


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [
        (r"\d+", "12 of 345", "345"),
        (r"(?i)ID: (\w+)|none", "id: X7, none", "none"),
        (r"a|b", "a b c", "b"),
        (r"x?", "x" * 50_000, "x"),
        (r"early: (\w+)", "early: yes" + " " * 30_000, None),
        (r"id:(\w*)", "id: ", None),
    ],
)
def test_a_pattern_reads_its_last_match_in_the_end_of_an_answer(pattern: str, text: str, value: str | None) -> None:
    assert read({"a": text}, "regex", Asked(), pattern).values["a"] == value


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "vote", "early_exit": "equal"},
        {"strategy": "debate", "quorum": 3},
        {"strategy": "select", "select": Selection(by=("agreement",)), "early_prefill": False},
    ],
)
async def test_long_answers_are_read_and_compared_beside_the_event_loop(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, settings: Json
) -> None:
    threads: list[str] = []

    def noting(work: Callable[..., object]) -> Callable[..., object]:
        def noted(*args: object) -> object:
            threads.append(current_thread().name)
            return work(*args)

        return noted

    monkeypatch.setattr(agreement, "reading", noting(agreement.reading))
    monkeypatch.setattr("cappella.ensemble.selection.overlap", noting(fallback.overlap))
    await fake_engines.run(**settings)
    assert set(threads) == {main_thread().name}
    threads.clear()
    let_members_answer(fake_engines, "red " * 5000, "blue " * 5000, "green " * 5000)
    await fake_engines.run(**settings)
    assert threads
    assert main_thread().name not in threads


@pytest.mark.parametrize(
    ("extractor", "one", "same", "another"),
    [
        ("number", "3.10", "3.1", "3.2"),
        ("number", "We get 1/2.", "0.5", "2"),
        ("choice", "I choose option F.", "f", "G"),
        ("boxed", "so \\boxed{x^{2} + 1}", "\\boxed{x^{2}+1}", "x^2"),
        ("boxed", "\\boxed{0.50}", "\\boxed{1/2}", "\\boxed{2}"),
        ("json", '{"a": 1}', 'It is ```json\n{"a": 1.0}\n```', '{"a": 2}'),
        ("code", PROGRAM, SAME_PROGRAM, "f = 1"),
        ("regex", "id: X7 (of 9)", "not id: X8 but id: X7", "id: Y7"),
        ("last_line", "I think.\nRed.", "red", "blue\nred or so"),
        ("text", "Red and  blue.", "red and blue", "blue and red"),
    ],
)
async def test_an_extractor_that_is_named_reads_each_answer(
    fake_engines: FakeEngines, extractor: Extractor, one: str, same: str, another: str
) -> None:
    let_members_answer(fake_engines, another, one, same)
    run = await fake_engines.run(strategy="vote", extract=extractor, extract_pattern=r"id: (\w+)")
    assert (run.content, [run.verdict.chosen, run.verdict.votes and run.verdict.votes["bob"]]) == (
        one, ["bob", ["bob", "cat"]]
    )  # fmt: skip


async def test_an_answer_without_a_value_has_no_vote(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "I do not know.", "I do not know.", "It must be 42.")
    run = await fake_engines.run(strategy="vote", extract="number")
    assert (run.content, run.verdict.votes) == ("It must be 42.", {"cat": ["cat"]})
    assert trace.fusion(run, trace.FullDetail())["extracted"]["values"] == {"ann": None, "bob": None, "cat": "42"}


async def test_one_value_is_an_early_exit_and_the_end_of_a_debate(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "17*23 = 381.", "381", "The answer is 381")
    run = await fake_engines.run(early_exit="equal")
    assert (run.content, run.verdict.early_exit) == ("17*23 = 381.", "equal")
    run = await fake_engines.run(strategy="debate", quorum=3)
    assert (run.verdict.early_exit, len(run.rounds)) == ("equal", 1)


@pytest.mark.parametrize(
    "text", ["<answer>", "answer is ", "\n", "```", "1,111", "= ", "\\boxed{", "A)", "(", "answer" + " " * 99]
)
@pytest.mark.parametrize("extractor", ["auto", "number", "choice", "json", "code"])
def test_a_hostile_answer_is_read(text: str, extractor: Extractor) -> None:
    long = text * 20_000
    assert set(read({"a": long, "b": "3"}, extractor, Asked.by(long)).values) == {"a", "b"}


def test_a_pattern_is_needed_and_checked() -> None:
    ensemble = Ensemble.model_validate({"panel": ["ann"], "judge": "ann"})
    with pytest.raises(ValueError, match="no pattern"):
        Options(extract_pattern="(")
    with pytest.raises(ValueError, match="no pattern"):
        Options(extract_pattern=r"\Qid(")
    with pytest.raises(ValueError, match="extract_pattern"):
        Ensemble.model_validate({"panel": ["ann"], "judge": "ann", "extract": "regex"})
    models = {"ann": type("Model", (), {"capabilities": Capabilities()})()}
    with pytest.raises(RequestError, match="extract_pattern"):
        resolve(
            "x", ensemble, models, Overrides(options=Options(extract="regex")),
            Prompt([{"role": "user", "content": "Hi"}]), ensemble.judge.sampling,
        )  # fmt: skip


async def test_the_weight_of_a_vote_is_its_members(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "41", "41", "It is 42")
    weights = {"ann": -2.0, "bob": -2.0, "cat": 1.2}
    assert (await fake_engines.run(strategy="vote")).content == "41"
    assert (await fake_engines.run(strategy="vote", weights=weights)).content == "It is 42"
    fake_engines.let("judge", judge_script(choice=choice_script(**{"42": 0.9})))
    close = await fake_engines.run(strategy="vote", weights={"ann": -2.0, "bob": -2.0, "cat": -1.5})
    assert (close.content, close.verdict.probabilities is None) == ("It is 42", False)


def test_a_weight_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="weights"):
        Ensemble.model_validate({"panel": ["ann"], "judge": "ann", "weights": {"dan": 1.0}})
