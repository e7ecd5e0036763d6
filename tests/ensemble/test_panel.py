"""A round of the panel over scripted engines."""

import asyncio

import pytest

from cappella.config.options import Seat
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed
from cappella.ensemble.panel import SeatRequest, WaitPolicy, collect_answers
from cappella.ensemble.run import Panel
from cappella.types import Prompt, Sampling
from support.clock import Clock
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.scripted_engine import Json, Script, too_long

SEATS = tuple(Seat(name, name) for name in MEMBERS)


async def ask(
    fake_engines: FakeEngines,
    seats: tuple[Seat, ...] = SEATS,
    quorum: int = 2,
    timeout_s: float = 10.0,
    grace_s: float | None = None,
    quorate_timeout_s: float = 10.0,
) -> Panel:
    messages = [{"role": "user", "content": "Hi"}]
    requests = [
        SeatRequest(seat, fake_engines.engines[seat.model], Prompt(messages, samples=seat.samples)) for seat in seats
    ]
    return await collect_answers(
        requests, WaitPolicy(quorum, timeout_s, grace_s, quorate_timeout_s), fake_engines.events.append
    )


async def test_answers_are_in_the_order_of_the_seats(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a",), pause_s=0.2))
    fake_engines.let("cat", Script(("c",)))
    panel = await ask(fake_engines)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)
    done = [event.answer.name for event in fake_engines.events if isinstance(event, AnswerDone)]
    assert done[-1] == "ann"


async def test_one_model_may_have_two_seats_with_separate_answers(fake_engines: FakeEngines) -> None:
    seats = (Seat("ann", "ann", Sampling(seed=1)), Seat("ann#2", "ann", Sampling(seed=2)))
    fake_engines.let("ann", lambda body: Script((f"seed {body['seed']}",)))
    panel = await ask(fake_engines, seats)
    assert {answer.name: answer.content for answer in panel.answers} == {"ann": "seed 1", "ann#2": "seed 2"}
    assert {event.name for event in fake_engines.events if isinstance(event, AnswerDelta)} == {"ann", "ann#2"}


async def test_every_member_emits_exactly_one_final_event(fake_engines: FakeEngines, clock: Clock) -> None:
    fake_engines.let("ann", Script(ending="break"))
    fake_engines.let("cat", Script(ending="hang"))
    await clock.skip(10, ask(fake_engines, quorum=1), once=lambda: fake_engines.ended == ["bob"])
    ends = [event.answer.name for event in fake_engines.events if isinstance(event, AnswerDone)]
    ends += [event.failure.name for event in fake_engines.events if isinstance(event, AnswerFailed)]
    assert sorted(ends) == list(MEMBERS)


@pytest.mark.parametrize(
    ("script", "reason", "status_code", "partial"),
    [
        (Script(("a", "b"), ending="break"), "engine_broke", 502, "ab"),
        (Script(("a",), ending="garbage"), "engine_broke", 502, "a"),
        (Script(("a",), ending="odd"), "engine_broke", 502, "a"),
        (Script(("a",), ending="error"), "engine_broke", 502, "a"),
        (Script(()), "empty_answer", 502, ""),
        (Script((" ", "\n")), "empty_answer", 502, " \n"),
        (too_long(), "context_length_exceeded", 400, ""),
        (Script(refuse=(429, {"error": {"message": "busy", "param": None}})), "rejected", 429, ""),
        (Script(refuse=(500, {})), "engine_broke", 502, ""),
        (Script(("a",), ending="hang"), "deadline", 504, "a"),
    ],
)
async def test_each_kind_of_failure_has_its_own_reason(
    fake_engines: FakeEngines, script: Script, reason: str, status_code: int, partial: str
) -> None:
    fake_engines.let("bob", script)
    panel = await ask(fake_engines, timeout_s=0.6 if reason == "deadline" else 10)
    assert [answer.name for answer in panel.answers] == ["ann", "cat"]
    (failed,) = panel.failures
    assert (failed.name, failed.reason, failed.status_code, failed.partial) == (
        "bob",
        reason,
        status_code,
        partial,
    )
    assert failed.error


async def test_without_a_grace_period_a_round_waits_for_every_member(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("late",), pause_s=0.3))
    assert len((await ask(fake_engines, quorum=1)).answers) == 3


async def test_members_still_running_at_the_timeout_are_cancelled(fake_engines: FakeEngines, clock: Clock) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="hang"))
    panel = await clock.skip(10, ask(fake_engines, timeout_s=10), once=lambda: fake_engines.running == 3)
    assert [failed.reason for failed in panel.failures] == ["deadline"] * 3
    assert await eventually(lambda: sum(server.aborted for server in fake_engines.servers.values()) == 3)


async def test_members_run_concurrently(fake_engines: FakeEngines) -> None:
    seen: list[int] = []

    def script(_: Json) -> Script:
        seen.append(fake_engines.running)
        return Script(pause_s=0.3)

    for name in MEMBERS:
        fake_engines.let(name, script)
    await ask(fake_engines)
    assert sorted(seen) == [0, 1, 2]


async def test_cancelling_a_round_frees_every_engine_before_it_returns(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="hang"))
    round_ = asyncio.create_task(ask(fake_engines))
    assert await eventually(lambda: fake_engines.running == 3)
    round_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await round_
    assert await eventually(lambda: fake_engines.running == 0)


async def test_stragglers_are_cancelled_when_the_grace_period_ends(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("c",), ending="hang" if name == "cat" else "held"))
    round_ = asyncio.create_task(ask(fake_engines, timeout_s=60, grace_s=0.05))
    assert await eventually(lambda: fake_engines.partial_answer("cat") == "c")
    fake_engines.release()
    panel = await round_
    assert [answer.name for answer in panel.answers] == ["ann", "bob"]
    assert [(failure.name, failure.reason, failure.partial) for failure in panel.failures] == [
        ("cat", "straggler", "c")
    ]
    assert await eventually(lambda: fake_engines.running == 0)


@pytest.mark.parametrize("pieces", [(), ("c" * 60,)])
async def test_a_straggler_costs_its_prompt_and_what_it_wrote(
    fake_engines: FakeEngines, pieces: tuple[str, ...]
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(pieces, ending="hang") if name == "cat" else Script(ending="held"))
    round_ = asyncio.create_task(ask(fake_engines, timeout_s=60, grace_s=0.05))
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    assert await eventually(lambda: fake_engines.partial_answer("cat") == "".join(pieces))
    fake_engines.release()
    usage = (await round_).calls[-1].usage
    assert (usage.estimated, usage.prompt_tokens > 0, usage.completion_tokens > 0) == (True, True, bool(pieces))


async def test_an_answer_within_the_grace_period_counts(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("c",), pause_s=0.2))
    panel = await ask(fake_engines, timeout_s=60.0, grace_s=60.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)


async def test_a_grace_period_does_not_lengthen_the_round(fake_engines: FakeEngines, clock: Clock) -> None:
    fake_engines.let("cat", Script(("c",), ending="hang"))
    panel = await clock.skip(
        10, ask(fake_engines, timeout_s=10, grace_s=60.0), once=lambda: len(fake_engines.ended) == 2
    )
    assert [failure.reason for failure in panel.failures] == ["deadline"]


async def test_the_grace_period_begins_with_the_quorum(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(("b",), pause_s=0.3))
    fake_engines.let("cat", Script(("c",), pause_s=0.3))
    panel = await ask(fake_engines, quorum=3, grace_s=0.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)


async def test_with_a_quorum_a_round_leaves_the_judges_time(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("c",), ending="hang"))
    panel = await ask(fake_engines, quorate_timeout_s=0.1)
    assert [answer.name for answer in panel.answers] == ["ann", "bob"]
    assert [failure.reason for failure in panel.failures] == ["deadline"]


async def test_below_the_quorum_a_round_may_use_the_judges_time(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((name,), pause_s=0.2))
    panel = await ask(fake_engines, quorum=3, quorate_timeout_s=0.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)
