"""The debate strategy: members revise their answers until they agree or the rounds are over."""

from collections.abc import Callable

from cappella.ensemble.events import FinalDelta, RoundStarted
from cappella.types import OutputFormat, Prompt
from support.fake_engines import MEMBERS, FakeEngines, judge_script, last_message
from support.scripted_engine import Json, Script

HI = [{"role": "user", "content": "Say hello."}]


def revises(*texts: str | Script) -> Callable[[Json], Script]:
    """A member's script: one text a round."""
    left = [Script((each,)) if isinstance(each, str) else each for each in texts]
    return lambda _: left.pop(0)


def rounds_started(fake_engines: FakeEngines) -> list[int]:
    return [event.number for event in fake_engines.events if isinstance(event, RoundStarted)]


async def test_members_that_agree_at_once_need_neither_a_second_round_nor_the_judge(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, revises("Red."))
    run = await fake_engines.run(strategy="debate")
    assert (run.content, run.status, run.verdict.chosen, run.verdict.early_exit) == ("Red.", "ok", "ann", "equal")
    assert (len(run.rounds), fake_engines.servers["judge"].bodies) == (1, [])


async def test_members_read_the_others_answers_without_names_and_may_agree_then(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", revises("blue", "Red"))
    fake_engines.let("bob", revises("red", "red"))
    fake_engines.let("cat", revises("green", "red."))
    run = await fake_engines.run(strategy="debate", layers=4)
    assert (run.content, run.status, run.verdict.early_exit) == ("Red", "ok", "equal")
    assert [[answer.content for answer in panel.answers] for panel in run.rounds] == [
        ["blue", "red", "green"],
        ["Red", "red", "red."],
    ]
    assert (rounds_started(fake_engines), fake_engines.servers["judge"].bodies) == ([2], [])
    revising = last_message(fake_engines.servers["ann"].bodies[1])
    assert all(f"\n{text}\n" in revising for text in ("blue", "red", "green"))
    assert not any(name in revising for name in MEMBERS)
    assert "".join(event.chunk.content for event in fake_engines.events if isinstance(event, FinalDelta)) == "Red"


async def test_without_agreement_the_judge_writes_after_the_last_round(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", revises("red", "blue", "red"))
    fake_engines.let("bob", revises("blue", "red", "blue"))
    fake_engines.let("cat", revises("green", "green", "green"))
    run = await fake_engines.run(strategy="debate", layers=3)
    assert (run.content, run.status, run.verdict.early_exit) == ("The final answer", "ok", "off")
    assert [answer.content for answer in run.answers] == ["red", "blue", "green"]
    assert (len(run.rounds), rounds_started(fake_engines)) == (3, [2, 3])
    assert [call.role for call in run.calls] == ["panel"] * 9 + ["analysis", "final"]
    assert run.analysis


async def test_a_debate_has_at_least_two_rounds(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, revises(f"{name} once", f"{name} twice"))
    run = await fake_engines.run(strategy="debate", analysis="off")
    assert [answer.content for answer in run.answers] == [f"{name} twice" for name in MEMBERS]


async def test_a_member_that_fails_in_a_later_round_leaves_the_others_to_debate(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", revises("red", "blue"))
    fake_engines.let("bob", revises("blue", "blue"))
    fake_engines.let("cat", revises("green", Script(("gre",), ending="break")))
    run = await fake_engines.run(strategy="debate")
    assert (run.content, run.status, run.verdict.early_exit) == ("blue", "degraded", "equal")
    assert [(failure.name, failure.reason, failure.partial) for failure in run.failures] == [
        ("cat", "engine_broke", "gre")
    ]


async def test_a_later_round_below_the_quorum_leaves_the_answers_of_the_one_before(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, revises(f"{name} once", Script(ending="break")))
    run = await fake_engines.run(strategy="debate", layers=3, analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "layer_below_quorum")
    assert [answer.content for answer in run.answers] == [f"{name} once" for name in MEMBERS]


async def test_a_slow_later_round_leaves_the_judge_its_share_of_the_deadline(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, revises(f"{name} once", Script(("I",), ending="hang")))
    run = await fake_engines.run(strategy="debate", analysis="off", deadline_s=3.0)
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "layer_below_quorum")
    assert [answer.content for answer in run.answers] == [f"{name} once" for name in MEMBERS]
    assert {(failure.name, failure.reason) for failure in run.failures} == {(name, "deadline") for name in MEMBERS}


async def test_members_get_the_output_format_since_their_answer_may_be_returned(fake_engines: FakeEngines) -> None:
    output_format = OutputFormat("structured_outputs", {"choice": ["red", "blue"]})
    for name in MEMBERS:
        fake_engines.let(name, revises("red"))
    await fake_engines.put(Prompt(HI, output_format=output_format, logprobs=1), strategy="debate")
    body = fake_engines.servers["ann"].bodies[0]
    assert (body["structured_outputs"], body["top_logprobs"]) == (output_format.value, 1)


async def test_if_the_judge_fails_the_best_answer_of_the_last_round_is_returned(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", revises("one", "it is red"))
    fake_engines.let("bob", revises("two", "it is red now"))
    fake_engines.let("cat", revises("three", "nothing"))
    fake_engines.let("judge", judge_script(Script(ending="break")))
    run = await fake_engines.run(strategy="debate", analysis="off")
    assert (run.status, run.failure_reason) == ("degraded", "engine_broke")
    assert run.content.startswith("it is red")
