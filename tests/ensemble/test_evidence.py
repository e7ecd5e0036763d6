"""The passages behind the answers in the judge's prompts: within their share, and never at the cost of answers."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.tools.base import Passage
from cappella.types import Sampling
from support.fake_engines import ANALYSIS, FakeEngines, last_message
from support.scripted_engine import Json, Script, too_long
from support.small_tools import LEAVE, NOTICE, searching

SEARCH = Script((), calls=(("search", '{"q": "leave"}'),), finish_reason="tool_calls")
ANSWER = "Word. " * 100
CONTEXT_TOKENS = 4096
DIGITS = "".join(str(number) for number in range(1000, 4000))


def seat(name: str, *tools: str) -> Seat:
    return Seat(name, name, Sampling(temperature=0.7), tools=SeatTools(tools))


def finding(fake_engines: FakeEngines, name: str, *passages: Passage, answer: str = ANSWER) -> Seat:
    """A seat that finds these passages, then answers."""
    fake_engines.tool_servers[f"of_{name}"] = searching(*passages, name=f"of_{name}")
    fake_engines.let(
        name,
        lambda body: Script((answer,)) if any(each["role"] == "tool" for each in body["messages"]) else SEARCH,
    )
    return seat(name, f"of_{name}")


def by_digits(body: Json) -> int:
    """A digit is a token; other texts have four characters in each."""
    text = json.dumps([body["messages"], body.get("tools")])
    digits = sum(map(str.isdigit, text))
    return digits + (len(text) - digits) // 4


def passages_in(text: str) -> str:
    """The evidence in a prompt."""
    return re.split(r"\n\[end S ", re.split(r"\[result S [0-9a-f]{8}\]\n", text)[1])[0]


def judge_reads(fake_engines: FakeEngines, *, refuses: Any = lambda body: False) -> None:
    """A judge with a small context that counts digits; it refuses the prompts of which `refuses` says so."""
    judge = fake_engines.servers["judge"]
    judge.tokens_of = by_digits
    judge.engine.capabilities = replace(judge.engine.capabilities, context_tokens=CONTEXT_TOKENS)

    def script(body: Json) -> Script:
        if refuses(body):
            return too_long(CONTEXT_TOKENS)
        compares = "Now compare the answers" in last_message(body)
        return Script((json.dumps(ANALYSIS),)) if compares else Script(("The", " answer"))

    judge.script = script


async def test_passages_of_dense_text_have_their_share_as_the_judge_counts_it_and_the_answers_stay_whole(
    fake_engines: FakeEngines,
) -> None:
    table = Passage("handbook", "table.csv", "rows 1-900", DIGITS)
    judge_reads(fake_engines, refuses=lambda body: by_digits(body) > CONTEXT_TOKENS)
    for name in ("bob", "cat"):
        fake_engines.let(name, Script((ANSWER,)))
    panel = (finding(fake_engines, "ann", table, LEAVE), seat("bob"), seat("cat"))
    run = await fake_engines.run(panel=panel, analysis="off", early_prefill=False)
    assert (run.content, run.status, run.shortened) == ("The answer", "ok", [])
    text = fake_engines.judge_prompt()
    assert text.count(ANSWER.strip()) == 3
    found = passages_in(text)
    assert CONTEXT_TOKENS // 8 < sum(map(str.isdigit, found)) < CONTEXT_TOKENS // 4
    assert "characters are left out" in found
    # What is short stays whole.
    assert "Everyone has 30 days of leave." in found


async def test_a_judge_that_still_finds_its_prompt_too_long_reads_less_of_the_passages_and_whole_answers(
    fake_engines: FakeEngines,
) -> None:
    text = Passage("handbook", "long.md", "lines 1-99", "Some words. " * 300)
    judge_reads(fake_engines, refuses=lambda body: last_message(body).count("Some words. ") > 100)
    fake_engines.servers["judge"].tokens_of = lambda _: 50
    fake_engines.let("bob", Script((ANSWER,)))
    panel = (finding(fake_engines, "ann", text), seat("bob"))
    run = await fake_engines.run(panel=panel, early_prefill=False)
    assert (run.content, run.status, run.shortened) == ("The answer", "ok", [])
    assert run.analysis
    for call in (-2, -1):
        assert 10 < fake_engines.judge_prompt(call).count("Some words. ") <= 100
        assert fake_engines.judge_prompt(call).count(ANSWER.strip()) == 2


async def test_answers_are_shortened_where_less_of_the_passages_is_not_enough(fake_engines: FakeEngines) -> None:
    judge_reads(fake_engines, refuses=lambda body: last_message(body).count("Word.") > 500)
    fake_engines.servers["judge"].tokens_of = lambda body: len(json.dumps(body["messages"])) // 2
    fake_engines.let("bob", Script((ANSWER * 4,)))
    panel = (finding(fake_engines, "ann", LEAVE, NOTICE, answer=ANSWER * 4), seat("bob"))
    run = await fake_engines.run(panel=panel, analysis="off", early_prefill=False)
    assert (run.content, run.status) == ("The answer", "ok")
    assert run.shortened


async def test_too_many_passages_are_left_out_but_those_that_are_cited(fake_engines: FakeEngines) -> None:
    many = [Passage("handbook", f"{number}.md", "line 1", f"Fact {'x' * 400} {number}.") for number in range(60)]
    judge_reads(fake_engines)
    panel = (finding(fake_engines, "ann", *many, answer="It is so [S57]."), seat("bob"))
    await fake_engines.run(panel=panel, analysis="off", early_prefill=False)
    found = passages_in(fake_engines.judge_prompt())
    lines = found.splitlines()
    assert any(line.startswith("[S57] handbook/56.md") for line in lines)
    assert len([line for line in lines if line.startswith("[S")]) <= CONTEXT_TOKENS // 4 // 64


async def test_passages_leave_the_tokens_of_a_limited_run_to_the_judges_answer(fake_engines: FakeEngines) -> None:
    text = Passage("handbook", "long.md", "lines 1-99", "Some words. " * 2000)
    judge = fake_engines.servers["judge"]
    judge.tokens_of = by_digits
    panel = (finding(fake_engines, "ann", text, answer="Yes."), seat("bob"))
    run = await fake_engines.run(panel=panel, max_total_tokens=4000, early_prefill=False)
    assert run.status == "ok"
    assert run.analysis
    assert passages_in(fake_engines.judge_prompt())


async def test_each_part_of_a_fold_has_the_passages_of_its_answers(fake_engines: FakeEngines) -> None:
    long = "Word. " * 900
    judge_reads(fake_engines)
    other = Passage("handbook", "other.md", "line 1", "Other facts.")
    panel = (
        finding(fake_engines, "ann", LEAVE, answer=f"a {long}"),
        finding(fake_engines, "bob", NOTICE, answer=f"b {long}"),
        finding(fake_engines, "cat", other, answer=f"c {long}"),
    )
    run = await fake_engines.run(panel=panel, analysis="off", answers_exceed="fold", early_prefill=False)
    assert [call.role for call in run.calls if call.seat == "judge"] == ["fold", "final"]
    texts = {"ann": LEAVE.text, "bob": NOTICE.text, "cat": other.text}
    first, last = (last_message(body) for body in fake_engines.servers["judge"].bodies)
    names = list(run.labels.values())
    assert {name for name, text in texts.items() if text in first} == set(names[:2])
    # The draft rests on what the answers rest on that it was made of.
    assert all(text in last for text in texts.values())
    found = {line.split(": ")[-1]: line for line in passages_in(last).splitlines()}
    assert ["found by A" in found[texts[name]] for name in names] == [True, True, False]
    assert "found by B" in found[texts[names[2]]]


@pytest.mark.parametrize("again", ["again", "other"])
async def test_the_judge_reads_what_an_answer_cites_though_another_round_found_it(
    fake_engines: FakeEngines, again: str
) -> None:
    """Bob reads ann's answer of the first round, and cites what she found; ann finds something else, or fails."""
    fake_engines.tool_servers["of_ann"] = searching(LEAVE, name="of_ann")
    broken = Script(("so",), ending="break")

    def ann(body: Json) -> Script:
        if "[answer " in json.dumps(body["messages"]):
            return broken if again == "other" else Script(("Thirty.",))
        return Script(("30 days [S1].",)) if body["messages"][-1]["role"] == "tool" else SEARCH

    fake_engines.let("ann", ann)
    fake_engines.let("bob", lambda body: Script(("Bob: 30 [S1].",)))
    panel = (seat("ann", "of_ann"), seat("bob"), seat("cat"))
    run = await fake_engines.run(panel=panel, layers=2, analysis="off", early_prefill=False)
    letters = {name: letter for letter, name in run.labels.items()}
    assert ("ann" in letters) is (again == "again")
    found = passages_in(fake_engines.judge_prompt())
    who = f"found by {letters['ann']}" if again == "again" else f"cited by {letters['bob']}"
    assert found == f"[S1] handbook/leave.md, lines 10-14, {who}: {LEAVE.text}"


async def test_passages_that_are_short_anyway_cost_no_retry_of_their_own(fake_engines: FakeEngines) -> None:
    judge_reads(fake_engines, refuses=lambda body: last_message(body).count("Word.") > 500)
    fake_engines.servers["judge"].tokens_of = lambda body: len(json.dumps(body["messages"])) // 2
    fake_engines.let("bob", Script((ANSWER * 4,)))
    panel = (finding(fake_engines, "ann", LEAVE, answer=ANSWER * 4), seat("bob"))
    run = await fake_engines.run(panel=panel, analysis="off", early_prefill=False)
    assert (run.content, run.status) == ("The answer", "ok")
    prompts = [fake_engines.judge_prompt(call) for call in range(len(fake_engines.servers["judge"].bodies))]
    assert len({passages_in(prompt) for prompt in prompts}) == 1
