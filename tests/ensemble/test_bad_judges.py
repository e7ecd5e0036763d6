"""Judges and answers that are of no use: it is told what was wrong, and the best that can be had is returned."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from cappella.config.weighing import Agreement, Selection
from cappella.telemetry import trace
from cappella.types import Capabilities, OutputFormat, Prompt
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, choice_script, judge_script, last_message
from support.scripted_engine import Json, Script, too_long

CHINESE = "我认为第二个答案最好。"
LIKE = ("It is a blue sky", "It is a red sky", "A blue sky it is")
"""The third is most like the others."""
BAD = {
    "the wrong language": Script((CHINESE,), logprobs=({"token": "我", "logprob": -0.1, "top_logprobs": []},)),
    "nothing": Script(()),
    "blanks": Script((" \n",)),
    "a letter that nobody has": Script(("Q",), logprobs=({"token": "Q", "logprob": -0.1, "top_logprobs": []},)),
    "thoughts only": Script((), reasoning="A? B!", finish_reason="length"),
}


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("strategy", ["select", "vote"])
async def test_a_choice_that_is_none_leaves_the_answer_most_like_the_others(
    fake_engines: FakeEngines, bad: str, strategy: str
) -> None:
    let_members_answer(fake_engines, *LIKE)
    fake_engines.let("judge", BAD[bad])
    run = await fake_engines.run(strategy=strategy)
    reason = "judge_schema_mismatch" if BAD[bad].pieces and "".join(BAD[bad].pieces).strip() else "empty_answer"
    assert (run.status, run.failure_reason) == ("degraded", reason)
    assert run.content in (LIKE[0], LIKE[2])


@pytest.mark.parametrize("bad", BAD)
async def test_an_analysis_that_is_none_is_told_and_the_answer_is_written_without_it(
    fake_engines: FakeEngines, bad: str
) -> None:
    fake_engines.let("judge", judge_script(analysis=BAD[bad]))
    run = await fake_engines.run()
    assert (run.status, run.content, run.analysis) == ("degraded", "The final answer", None)
    assert run.failure_reason in ("judge_not_valid_json", "empty_answer")


async def test_an_analysis_with_a_letter_that_nobody_has_is_told(fake_engines: FakeEngines) -> None:
    odd = {**ANALYSIS, "unique_insights": [{"model": "Q", "insight": "It is blue."}]}
    fake_engines.let("judge", judge_script(analysis=Script((json.dumps(odd),))))
    run = await fake_engines.run()
    assert (run.status, run.failure_reason, run.content) == ("degraded", "judge_schema_mismatch", "The final answer")


@pytest.mark.parametrize("bad", BAD)
async def test_a_word_on_agreement_that_is_none_ends_no_run_early(fake_engines: FakeEngines, bad: str) -> None:
    let_members_answer(fake_engines, *LIKE)
    fake_engines.let("judge", lambda body: BAD[bad] if "structured_outputs" in body else Script(("Blue",)))
    run = await fake_engines.run(early_exit="judge", analysis="off")
    assert (run.content, run.status, run.verdict.early_exit) == ("Blue", "ok", "off")


@pytest.mark.parametrize("bad", BAD)
async def test_groups_that_are_none_leave_the_words(fake_engines: FakeEngines, bad: str) -> None:
    let_members_answer(fake_engines, "rain", "Rain.", "sun")
    fake_engines.let("judge", BAD[bad])
    run = await fake_engines.run(strategy="vote", agreement=Agreement(by="judge"))
    assert (run.content, run.status) == ("rain", "degraded")
    assert trace.fusion(run, trace.FullDetail())["agreement"]["by"] == "words"


@pytest.mark.parametrize("bad", ["nothing", "blanks", "thoughts only"])
async def test_a_synthesis_that_says_nothing_is_a_members_answer(fake_engines: FakeEngines, bad: str) -> None:
    let_members_answer(fake_engines, *LIKE)
    fake_engines.let("judge", BAD[bad])
    run = await fake_engines.run(analysis="off")
    assert (run.status, run.failure_reason) == ("degraded", "empty_answer")
    assert run.content in (LIKE[0], LIKE[2])


async def test_an_analysis_in_another_language_is_one(fake_engines: FakeEngines) -> None:
    points = {**ANALYSIS, "consensus": ["天空是蓝色的。"]}
    fake_engines.let("judge", judge_script(analysis=Script((json.dumps(points, ensure_ascii=False),))))
    run = await fake_engines.run()
    assert run.analysis
    assert (run.status, run.analysis["consensus"]) == ("ok", ["天空是蓝色的。"])


def counted(context: int, script: Callable[[Json], Script]) -> tuple[Callable[[Json], int], Callable[[Json], Script]]:
    def size(body: Json) -> int:
        return math.ceil(sum(len(str(message["content"])) for message in body["messages"]) / 5)

    return size, lambda body: too_long(context) if size(body) > context else script(body)


WAYS: list[dict[str, Any]] = [
    {"strategy": "synthesize"},
    {"strategy": "synthesize", "answers_exceed": "fold"},
    {"strategy": "select"},
    {"strategy": "vote"},
    {"strategy": "vote", "agreement": Agreement(by="judge")},
    {"strategy": "select", "select": Selection(by=("agreement",))},
]


@pytest.mark.parametrize("way", WAYS)
async def test_answers_of_no_token_of_one_and_of_thirty_thousand_are_judged(
    fake_engines: FakeEngines, way: dict[str, Any]
) -> None:
    long = "blue " * 30_000
    let_members_answer(fake_engines, "", "B", long)
    groups = Script(('{"A": "A", "B": "B"}',))

    def judge(body: Json) -> Script:
        form = json.dumps(body.get("response_format", ""))
        return groups if '"same"' in form else judge_script(choice=choice_script(blue=0.9, B=0.1))(body)

    size, script = counted(4000, judge)
    server = fake_engines.servers["judge"]
    server.tokens_of, server.script = size, script
    fake_engines.engines["judge"].capabilities = Capabilities(context_tokens=4000)
    run = await fake_engines.run(**way)
    assert [(each.name, each.reason) for each in run.failures] == [("ann", "empty_answer")]
    assert (run.status, run.failure_reason) == ("degraded", None)  # for the member without an answer alone
    assert run.content in ("The final answer", "B", long)
    read = [last_message(body) for body in server.bodies if "[answer " in last_message(body)]
    assert all(len(each) < 5 * 4000 for each in read)
    assert {each.name for each in run.shortened} == ({"cat"} if read else set())


@pytest.mark.parametrize("form", [None, OutputFormat("response_format", {"type": "json_object"})])
async def test_criteria_that_contradict_the_request_stand_after_it_and_change_neither_it_nor_its_form(
    fake_engines: FakeEngines, form: OutputFormat | None
) -> None:
    question, criteria = "Answer in English, in JSON.", "Answer in French, in prose."
    fake_engines.let("judge", judge_script(final=Script(('{"a": 1}',))))
    run = await fake_engines.put(Prompt([{"role": "user", "content": question}], output_format=form), criteria=criteria)
    assert (run.status, run.settings.criteria) == ("ok", criteria)
    for body in fake_engines.servers["judge"].bodies:
        text = last_message(body)
        assert 0 == text.index(question) < text.index(criteria)
    assert ("response_format" in fake_engines.servers["judge"].bodies[-1]) == (form is not None)
    assert all(criteria not in str(body) for name in MEMBERS for body in fake_engines.servers[name].bodies)
