"""Runs past their deadline or without a judge: they return the best answer there is, and the reason."""

import json

import aiohttp
import pytest

from cappella.config.options import Seat
from cappella.ensemble.errors import DeadlineExceeded
from cappella.vocabulary import AnalysisMode
from support.clock import Clock
from support.fake_engines import MEMBERS, FakeEngines, eventually, judge_script, last_message
from support.scripted_engine import Json, Script, too_long

HANG = Script(("I",), ending="hang")


async def test_a_straggler_leaves_the_judge_its_share_of_the_deadline(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", HANG)
    run = await fake_engines.run(deadline_s=3.0, round_timeout_s=10.0)
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", None)
    assert [(failure.name, failure.reason, failure.partial) for failure in run.failures] == [("cat", "deadline", "I")]


async def test_reviewers_that_hang_leave_the_judge_its_share_of_the_deadline(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, lambda body: HANG if "Now rank" in last_message(body) else Script())
    run = await fake_engines.run(deadline_s=3.0, review=True)
    assert (run.content, run.status, run.ranking) == ("The final answer", "ok", None)


@pytest.mark.parametrize(("mode", "calls"), [("before", 1), ("alongside", 2), ("off", 1)])
async def test_a_judge_that_hangs_gets_no_call_after_the_deadline(
    fake_engines: FakeEngines, clock: Clock, mode: AnalysisMode, calls: int
) -> None:
    fake_engines.let("judge", judge_script(HANG, HANG))
    judge = fake_engines.servers["judge"]
    run = await clock.skip(60, fake_engines.run(deadline_s=60, analysis=mode), once=lambda: judge.running == calls)
    assert (run.content, run.failure_reason) == ("Hello there", "deadline")
    assert len(judge.bodies) == calls
    assert await eventually(lambda: fake_engines.running == 0)


async def test_too_few_answers_in_time_are_an_error_that_carries_the_partials(
    fake_engines: FakeEngines, clock: Clock
) -> None:
    fake_engines.let("ann", HANG)
    fake_engines.let("bob", HANG)

    def both_have_begun() -> bool:
        return fake_engines.partial_answer("ann") == fake_engines.partial_answer("bob") == "I"

    with pytest.raises(DeadlineExceeded, match=r"1 of 3 members answered in time.*late: ann, bob") as raised:
        await clock.skip(
            15, fake_engines.run(round_timeout_s=15), once=lambda: fake_engines.ended == ["cat"] and both_have_begun()
        )
    assert [answer.content for answer in raised.value.answers] == ["Hello there"]
    assert [failure.partial for failure in raised.value.failures] == ["I", "I"]


async def test_a_finished_answer_is_returned_although_the_analysis_hangs(
    fake_engines: FakeEngines, clock: Clock
) -> None:
    fake_engines.let("judge", judge_script(analysis=HANG))
    judge = fake_engines.servers["judge"]

    def written() -> bool:
        return len(judge.bodies) == 2 and fake_engines.engines["judge"].in_flight == 1

    run = await clock.skip(60, fake_engines.run(deadline_s=60, analysis="alongside"), once=written)
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "deadline")
    assert run.analysis is None
    assert await eventually(lambda: fake_engines.running == 0)


async def test_a_failed_answer_does_not_wait_for_the_analysis(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(("half",), ending="break"), HANG))
    run = await fake_engines.run(analysis="alongside")
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "engine_broke")
    assert await eventually(lambda: fake_engines.running == 0)


async def test_a_failed_analysis_alongside_degrades_only_the_status(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(analysis=Script(ending="break")))
    run = await fake_engines.run(analysis="alongside")
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "engine_broke")


@pytest.mark.parametrize("state", ["failed", "restarting", "stopped"])
async def test_a_judge_that_is_not_ready_is_never_called(fake_engines: FakeEngines, state: str) -> None:
    fake_engines.engines["judge"].status.state = state  # type: ignore[assignment]
    run = await fake_engines.run()
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "not_ready")
    assert not fake_engines.servers["judge"].bodies


async def test_a_judge_may_also_sit_on_the_panel(fake_engines: FakeEngines) -> None:
    def script(body: Json) -> Script:
        if "response_format" in body:
            return judge_script()(body)
        return Script(("final",)) if "[answer A" in body["messages"][-1]["content"] else Script(("as a member",))

    fake_engines.let("ann", script)
    run = await fake_engines.run(judge="ann")
    assert (run.content, run.status) == ("final", "ok")
    assert run.answers[0].content == "as a member"


async def test_a_prompt_too_long_for_the_judge_returns_the_best_member(fake_engines: FakeEngines) -> None:
    error = {"message": "too long", "type": "BadRequestError", "param": "input_tokens", "code": 400}
    too_long = Script(refuse=(400, {"error": error}))
    fake_engines.let("judge", judge_script(too_long, too_long))
    run = await fake_engines.run()
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "context_length_exceeded")


async def test_a_self_ensemble_of_one_model_is_a_whole_panel(fake_engines: FakeEngines) -> None:
    seats = tuple(Seat(name, "ann") for name in ("ann", "ann#2", "ann#3"))
    run = await fake_engines.run(panel=seats)
    assert run.status == "ok"
    assert sorted(run.labels.values()) == ["ann", "ann#2", "ann#3"]
    assert not fake_engines.servers["bob"].bodies


@pytest.mark.parametrize("dead", MEMBERS)
async def test_a_run_survives_the_failure_of_any_one_member(fake_engines: FakeEngines, dead: str) -> None:
    fake_engines.engines[dead].status.state = "failed"
    run = await fake_engines.run()
    assert (run.content, run.status) == ("The final answer", "degraded")
    assert dead not in run.labels.values()


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_max_tokens_beyond_what_fits_are_cut_to_what_fits(
    fake_engines: FakeEngines, gateway: str, path: str
) -> None:
    def short_of_room(body: Json) -> Script:
        return too_long() if body.get("max_completion_tokens", 0) > 50 else Script(("All", " of it"))

    for name in (*MEMBERS, "judge"):
        fake_engines.let(name, short_of_room)
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 32_000}
    fusion = {"analysis": "off", "max_completion_tokens": 100}
    url, asked = f"{gateway}/v1/{path}", {**body, "fusion": fusion}
    async with aiohttp.ClientSession() as http, http.post(url, json=asked) as reply:
        answer = await reply.json()
    assert (reply.status, answer["fusion"]["status"], answer["fusion"]["failed_models"]) == (200, "ok", [])
    assert "All of it" in json.dumps(answer)
    written = [body for body in fake_engines.servers["judge"].bodies if body.get("max_completion_tokens") != 1]
    assert [body.get("max_completion_tokens") for body in written] == [32_000, None]
