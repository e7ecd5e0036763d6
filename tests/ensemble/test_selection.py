"""What `select` weighs: the judge in balanced orders, agreement, certainty, a reward model, and members' weights."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cappella.config.judge_seat import JudgeSeat
from cappella.config.options import Seat
from cappella.config.weighing import Selection
from cappella.ensemble.run import Run
from cappella.telemetry import trace
from cappella.vocabulary import Evidence
from support.fake_engines import MEMBERS, FakeEngines, choice_script, eventually, judge_script, last_message
from support.scripted_engine import Json, Script
from support.scripted_pooling import add_pooling

FLAT = judge_script(choice=choice_script(red=0.34, blue=0.33, green=0.33))


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


def told(run: Run) -> Json:
    return dict(trace.fusion(run, trace.FullDetail()))


def token(logprob: float) -> Json:
    return {"token": "x", "logprob": logprob, "top_logprobs": []}


async def test_all_parts_add_up_and_are_told(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red it is", "so it is blue", "it is blue")
    fake_engines.let("judge", judge_script(choice=choice_script(red=0.4, blue=0.3)))
    run = await fake_engines.run(strategy="select", weights={"ann": -1.0, "bob": 0.5, "cat": 1.0})
    assert run.verdict.chosen == "cat"
    seen = told(run)
    assert set(seen["evidence"]) == {"judge", "agreement", "weights"}
    sums = Counter({name: sum(part[name] for part in seen["evidence"].values()) for name in MEMBERS})
    (first, most), (_, next_) = sums.most_common(2)
    assert (first, seen["margin"]) == ("cat", pytest.approx(most - next_, abs=0.01))
    assert "confidence" not in seen


async def test_a_sure_judge_is_not_outvoted(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "it is red", "it is red", "green")
    fake_engines.let("judge", judge_script(choice=choice_script(green=0.97, red=0.01)))
    run = await fake_engines.run(strategy="select")
    assert (run.content, run.verdict.confidence) == ("green", None)


async def test_a_flat_judge_leaves_it_to_those_who_agree(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue sky", "a blue sky")
    fake_engines.let("judge", FLAT)
    assert "blue" in (await fake_engines.run(strategy="select")).content


async def test_below_the_margin_the_weights_decide_and_the_run_says_so(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    fake_engines.let("judge", FLAT)
    by = Selection(by=("judge",))
    run = await fake_engines.run(strategy="select", select=by, weights={"ann": -2.0, "bob": -2.0, "cat": 1.2})
    assert (run.content, run.status) == ("green", "ok")
    assert (told(run)["confidence"], told(run)["chosen"]) == ("low", "cat")
    sure = await fake_engines.run(strategy="select", select=Selection(by=("judge",), margin=0.0))
    assert (sure.content, sure.verdict.confidence) == ("red", None)


async def test_in_balanced_orders_every_answer_stands_in_every_place_once(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")

    def likes_the_first(body: Json) -> Script:
        first = last_message(body).split("[answer A ")[1].split("\n")[1]
        return choice_script(**{"green": 0.4, first: 0.6} if first != "green" else {"green": 1.0})(body)

    fake_engines.let("judge", judge_script(choice=likes_the_first))
    run = await fake_engines.run(strategy="select", debias=True)
    bodies = fake_engines.servers["judge"].bodies
    for letter in "ABC":
        assert {last_message(body).split(f"[answer {letter} ")[1].split("\n")[1] for body in bodies} == {
            "red", "blue", "green"
        }  # fmt: skip
    assert len(bodies) == 3
    assert run.content == "green"


async def test_few_orders_are_asked_at_a_time(fake_engines: FakeEngines) -> None:
    judge, running = fake_engines.servers["judge"], list[int]()
    chooses = choice_script(Hello=0.1)

    def script(body: Json) -> Script:
        running.append(judge.running + 1)
        if judge.running == 3:
            judge.released.set()
        return replace(chooses(body), ending="held")

    fake_engines.let("judge", script)
    panel = tuple(Seat(f"ann#{i}", "ann") for i in range(7))
    run = await fake_engines.run(strategy="select", debias=True, panel=panel, select=Selection(by=("judge",), margin=0))
    assert (len(running), max(running), run.status) == (7, 4, "ok")


async def test_an_order_that_fails_ends_the_others_and_all_count(fake_engines: FakeEngines) -> None:
    refused = Script(refuse=(400, {"error": {"message": "no"}}))
    fake_engines.let("judge", lambda _: refused if fake_engines.servers["judge"].running else Script((), ending="held"))
    run = await fake_engines.run(strategy="select", debias=True, panel=(Seat("ann", "ann"), Seat("bob", "bob")))
    assert (run.status, run.failure_reason) == ("degraded", "rejected")
    assert [call.role for call in run.calls].count("choice") == 2
    assert await eventually(lambda: fake_engines.running == 0)
    assert fake_engines.servers["judge"].aborted == 1


async def test_two_that_are_close_are_compared_as_a_pair(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")

    def sees_it_in_a_pair(body: Json) -> Script:
        shares = {"red": 0.45, "blue": 0.45, "green": 0.1}
        return choice_script(**({"blue": 0.9} if len(body["structured_outputs"]["choice"]) == 2 else shares))(body)

    fake_engines.let("judge", judge_script(choice=sees_it_in_a_pair))
    run = await fake_engines.run(strategy="select", debias=True)
    assert [call.role for call in run.calls].count("choice") == 5
    assert (run.content, run.verdict.confidence) == ("blue", None)


async def test_certainty_is_asked_for_only_where_it_counts_and_is_not_returned(fake_engines: FakeEngines) -> None:
    for name, text, logprob in zip(MEMBERS, ("red", "blue", "green"), (-2.0, -0.1, -1.0), strict=True):
        fake_engines.let(name, Script((text,), logprobs=(token(logprob),)))
    fake_engines.let("judge", FLAT)
    run = await fake_engines.run(strategy="select", select=Selection(by=("judge", "certainty")))
    assert (run.content, list(run.answer.logprobs)) == ("blue", [])
    assert told(run)["evidence"]["certainty"] == {"ann": -2.0, "bob": -0.1, "cat": -1.0}
    assert fake_engines.servers["ann"].bodies[0]["top_logprobs"] == 0
    await fake_engines.run(strategy="select")
    assert "logprobs" not in fake_engines.servers["ann"].bodies[1]


async def test_without_the_judge_in_the_evidence_it_is_not_asked(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue sky", "a blue sky")
    evidence: tuple[Evidence, ...] = ("agreement",)
    run = await fake_engines.run(strategy="select", select=Selection(by=evidence), early_prefill=False)
    assert "blue" in run.content
    assert not fake_engines.servers["judge"].bodies


async def test_a_reward_model_is_one_part(fake_engines: FakeEngines, tmp_path: Path) -> None:
    added = await add_pooling(fake_engines, tmp_path)
    added["rm"].worth = lambda text: {"red": -2.5, "blue": 1.5, "green": 0.25}[text]
    let_members_answer(fake_engines, "red", "blue", "green")
    fake_engines.let("judge", FLAT)
    run = await fake_engines.run(strategy="select", select=Selection(by=("judge", "reward"), reward="rm"))
    assert (run.content, told(run)["evidence"]["reward"]) == ("blue", {"ann": -2.5, "bob": 1.5, "cat": 0.25})
    assert [call.role for call in run.calls].count("score") == 3


@pytest.mark.parametrize("reason", ["engine_broke", "rejected"])
async def test_a_reward_model_that_fails_is_left_out_and_no_fault_of_the_judge(
    fake_engines: FakeEngines, tmp_path: Path, reason: str
) -> None:
    added = await add_pooling(fake_engines, tmp_path)
    status = {"engine_broke": 500, "rejected": 400}[reason]
    added["rm"].refusal = lambda _: (status, {"error": {"message": "x", "type": "x", "code": status}})
    let_members_answer(fake_engines, "red", "blue", "green")
    fake_engines.let("judge", judge_script(choice=choice_script(green=0.97, red=0.01)))
    run = await fake_engines.run(
        strategy="select",
        select=Selection(by=("judge", "reward"), reward="rm"),
        next_judges=(JudgeSeat("ann"),),
        early_prefill=False,
    )
    assert (run.content, run.verdict.chosen) == ("green", "cat")
    assert (run.status, run.failure_reason, run.failed_judges) == ("degraded", reason, [])
    assert [call.role for call in run.calls].count("choice") == 1
    assert set(told(run)["evidence"]) == {"judge"}
    only = Selection(by=("reward",), reward="rm")
    run = await fake_engines.run(strategy="select", select=only, weights={"ann": -2.0, "bob": 1.2, "cat": -1.0})
    assert (run.content, run.verdict.confidence, run.failure_reason) == ("blue", "low", reason)


async def test_the_trusted_members_answer_stands_in_for_a_failed_judge(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "it is red", "it is red now", "nothing")
    fake_engines.let("judge", Script((), ending="break"))
    run = await fake_engines.run(analysis="off", weights={"ann": -2.0, "bob": -2.0, "cat": 1.2})
    assert (run.content, run.status) == ("nothing", "degraded")
    assert (await fake_engines.run(analysis="off")).content.startswith("it is red")
