"""The points of an analysis are sentences, and speak of answers by the names of those who gave them."""

import json
from typing import Any

import pytest

from cappella.ensemble import prompts
from cappella.ensemble.analysis import with_names, without_letters
from cappella.ensemble.events import AnalysisDelta
from support.fake_engines import ANALYSIS, FakeEngines, judge_script, last_message
from support.scripted_engine import Json, Script

LABELS = {"A": "ann", "B": "bob", "C": "cat~1"}
EMPTY: Json = {
    "consensus": [],
    "contradictions": [],
    "partial_coverage": [],
    "unique_insights": [],
    "blind_spots": [],
}


def named(text: str, question: str = "Why?") -> str:
    analysis = with_names({**EMPTY, "consensus": [text]}, LABELS, [{"role": "user", "content": question}])
    (point,) = analysis["consensus"]
    assert isinstance(point, str)
    return point


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer B is shorter.", "bob is shorter."),
        ("answers A and C agree", "ann and cat~1 agree"),
        ("The answers A, B, and C agree", "ann, bob, and cat~1 agree"),
        ("Unlike Assistant C's, it is short", "Unlike cat~1's, it is short"),
        ("B says that it rains", "bob says that it rains"),
        ("A and B greet", "ann and bob greet"),
        ("Response D is good", "Response D is good"),
        ("A dog barks", "A dog barks"),
        ("Vitamins A and C help", "Vitamins A and C help"),
        ("C is a language", "C is a language"),
        ("Plan B is best", "Plan B is best"),
        ("The answer is B", "The answer is B"),
    ],
)
def test_names_stand_for_letters_where_a_text_speaks_of_answers(text: str, expected: str) -> None:
    assert named(text) == expected


def test_letters_of_choices_that_the_question_offers_stay() -> None:
    assert named("All give answer B", "Which one?\nA) red\nB) blue") == "All give answer B"


@pytest.mark.parametrize("point", ["B", "B, C", "A and C", "Answer B", "answers A, B and C.", "(B)", "A/B"])
def test_letters_alone_are_no_points(point: str) -> None:
    analysis = {
        **EMPTY,
        "consensus": [point, "Both greet"],
        "contradictions": [
            {"topic": point, "stances": []},
            {"topic": "choice", "stances": [{"model": "A", "stance": "B"}]},
        ],
        "unique_insights": [{"model": "A", "insight": point}],
    }
    kept, dropped = without_letters(analysis, LABELS)
    assert dropped == 3
    assert kept["consensus"] == ["Both greet"]
    assert [each["topic"] for each in kept["contradictions"]] == ["choice"]
    assert without_letters(kept, LABELS) == (kept, 0)


def analyses(*replies: Json) -> Any:
    waiting = [Script((json.dumps({**ANALYSIS, **reply}),)) for reply in replies]

    def script(body: Json) -> Script:
        is_analysis = "Now compare the answers" in last_message(body)
        return waiting.pop(0) if is_analysis else judge_script()(body)

    return script


async def test_an_analysis_of_letters_is_asked_once_more(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", analyses({"consensus": ["A", "B, C"]}, {"consensus": ["All greet."]}))
    run = await fake_engines.run(early_prefill=False)
    assert run.analysis
    assert (run.status, run.analysis["consensus"], run.dropped_points) == ("ok", ["All greet."], 0)
    assert [call.role for call in run.calls if call.seat == "judge"] == ["analysis", "analysis", "final"]
    first, second, final = [last_message(body) for body in fake_engines.servers["judge"].bodies]
    assert second == first + prompts.AS_SENTENCES
    assert "All greet." in final
    # Clients put the pieces together: those of one analysis.
    pieces = "".join(event.text for event in fake_engines.events if isinstance(event, AnalysisDelta))
    assert json.loads(pieces)["consensus"] == ["A", "B, C"]


async def test_letters_that_come_again_are_dropped_and_told(fake_engines: FakeEngines) -> None:
    letters = {"consensus": ["A", "Both greet"], "blind_spots": ["B"]}
    fake_engines.let("judge", analyses(letters, letters))
    run = await fake_engines.run()
    assert run.analysis
    assert (run.analysis["consensus"], run.analysis["blind_spots"], run.dropped_points) == (["Both greet"], [], 2)
    assert run.status == "ok"


async def test_a_budget_is_not_spent_on_a_second_analysis(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", analyses({"consensus": ["A", "Both greet"]}))
    run = await fake_engines.run(max_total_tokens=4000)
    assert run.analysis
    assert len(fake_engines.servers["judge"].bodies) == 2
    assert (run.status, run.analysis["consensus"], run.dropped_points) == ("ok", ["Both greet"], 1)


@pytest.mark.parametrize("second", [Script(ending="break"), Script(("{}",)), Script(("",))])
async def test_where_the_second_analysis_fails_the_first_one_counts(fake_engines: FakeEngines, second: Script) -> None:
    replies = [Script((json.dumps({**ANALYSIS, "consensus": ["A", "Both greet"]}),)), second]

    def script(body: Json) -> Script:
        return replies.pop(0) if "Now compare the answers" in last_message(body) else judge_script()(body)

    fake_engines.let("judge", script)
    run = await fake_engines.run()
    assert run.analysis
    assert (run.status, run.analysis["consensus"], run.dropped_points) == ("ok", ["Both greet"], 1)


async def test_an_instruction_comes_after_the_answers_however_long_they_are(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("Word. " * 10_000,)))
    await fake_engines.run(early_prefill=False)
    compare, write = [last_message(body) for body in fake_engines.servers["judge"].bodies]
    assert compare.endswith(prompts.COMPARE)
    assert write.endswith(prompts.WRITE)


async def test_a_synthesis_that_is_nothing_but_our_own_mark_is_no_answer(fake_engines: FakeEngines) -> None:
    def copies_a_mark(body: Json) -> Script:
        prompt = last_message(body)
        begin = prompt.index("[answer C ")
        return Script((prompt[begin : prompt.index("]", begin) + 1],))

    fake_engines.let("judge", copies_a_mark)
    run = await fake_engines.run(analysis="off", early_prefill=False)
    assert (run.status, run.failure_reason, run.content) == ("degraded", "empty_answer", "Hello there")


@pytest.mark.parametrize("more", [0.9, "high", None, ["A"], {"A": 1}])
async def test_what_an_analysis_has_beyond_its_schema_is_left_out(fake_engines: FakeEngines, more: Any) -> None:
    analysis = Script((json.dumps({**ANALYSIS, "confidence": more}),))
    fake_engines.let("judge", judge_script(analysis=analysis))
    run = await fake_engines.run()
    assert (run.status, run.content) == ("ok", "The final answer")
    assert run.analysis
    assert "confidence" not in run.analysis
    assert "confidence" not in fake_engines.judge_prompt()
