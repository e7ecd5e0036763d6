"""A round of the panel over scripted engines."""

import asyncio
import time

import pytest

from cappella.ensemble.panel import Patience, Question, ask_panel
from cappella.events import AnswerDelta, AnswerDone, AnswerFailed
from cappella.options import Seat
from cappella.runs import Panel
from cappella.types import Prompt, Sampling
from choir import MEMBERS, Choir, eventually
from scripted_engine import Json, Script, too_long

SEATS = tuple(Seat(name, name) for name in MEMBERS)


async def ask(
    choir: Choir,
    seats: tuple[Seat, ...] = SEATS,
    quorum: int = 2,
    timeout_s: float = 10.0,
    grace_s: float | None = None,
) -> Panel:
    messages = [{"role": "user", "content": "Hi"}]
    questions = [Question(seat, choir.engines[seat.model], Prompt(messages, samples=seat.samples)) for seat in seats]
    return await ask_panel(questions, Patience(quorum, timeout_s, grace_s), choir.events.append)


async def test_answers_stand_in_the_order_of_the_seats_whoever_was_first(choir: Choir) -> None:
    choir.let("ann", Script(("a",), pause_s=0.2))
    choir.let("cat", Script(("c",)))
    panel = await ask(choir)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)
    done = [event.answer.name for event in choir.events if isinstance(event, AnswerDone)]
    assert done[-1] == "ann"


async def test_one_model_may_sit_twice_and_each_seat_is_heard_apart(choir: Choir) -> None:
    seats = (Seat("ann", "ann", Sampling(seed=1)), Seat("ann#2", "ann", Sampling(seed=2)))
    choir.let("ann", lambda body: Script((f"seed {body['seed']}",)))
    panel = await ask(choir, seats)
    assert {answer.name: answer.content for answer in panel.answers} == {"ann": "seed 1", "ann#2": "seed 2"}
    assert {event.name for event in choir.events if isinstance(event, AnswerDelta)} == {"ann", "ann#2"}


async def test_every_member_ends_in_exactly_one_event(choir: Choir) -> None:
    choir.let("ann", Script(ending="break"))
    choir.let("cat", Script(ending="hang"))
    await ask(choir, quorum=1, timeout_s=0.4)
    ends = [event.answer.name for event in choir.events if isinstance(event, AnswerDone)]
    ends += [event.failure.name for event in choir.events if isinstance(event, AnswerFailed)]
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
async def test_each_way_to_fail_is_data_with_its_own_reason(
    choir: Choir, script: Script, reason: str, status_code: int, partial: str
) -> None:
    choir.let("bob", script)
    panel = await ask(choir, timeout_s=0.6 if reason == "deadline" else 10)
    assert [answer.name for answer in panel.answers] == ["ann", "cat"]
    (failed,) = panel.failures
    assert (failed.name, failed.reason, failed.status_code, failed.partial) == (
        "bob",
        reason,
        status_code,
        partial,
    )
    assert failed.error


async def test_a_round_waits_for_the_slowest_member_and_not_just_for_a_quorum(choir: Choir) -> None:
    choir.let("cat", Script(("late",), pause_s=0.3))
    assert len((await ask(choir, quorum=1)).answers) == 3


async def test_a_cut_member_costs_no_more_than_the_round(choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, Script(ending="hang"))
    began = time.monotonic()
    panel = await ask(choir, timeout_s=0.3)
    assert time.monotonic() - began < 2
    assert [failed.reason for failed in panel.failures] == ["deadline"] * 3
    assert await eventually(lambda: sum(server.aborted for server in choir.servers.values()) == 3)


async def test_members_are_asked_at_once(choir: Choir) -> None:
    seen: list[int] = []

    def script(_: Json) -> Script:
        seen.append(choir.running)
        return Script(pause_s=0.3)

    for name in MEMBERS:
        choir.let(name, script)
    await ask(choir)
    assert sorted(seen) == [0, 1, 2]


async def test_cancelling_a_round_frees_every_member_before_it_returns(choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, Script(ending="hang"))
    round_ = asyncio.create_task(ask(choir))
    assert await eventually(lambda: choir.running == 3)
    round_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await round_
    assert await eventually(lambda: choir.running == 0)


async def test_stragglers_are_cut_when_the_grace_after_the_quorum_is_over(choir: Choir) -> None:
    choir.let("cat", Script(("c",), ending="hang"))
    panel = await ask(choir, grace_s=0.1)
    assert [answer.name for answer in panel.answers] == ["ann", "bob"]
    assert [(failure.name, failure.reason, failure.partial) for failure in panel.failures] == [
        ("cat", "straggler", "c")
    ]
    assert await eventually(lambda: choir.running == 0)


async def test_who_comes_within_the_grace_is_heard(choir: Choir) -> None:
    choir.let("cat", Script(("c",), pause_s=0.2))
    panel = await ask(choir, grace_s=5.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)


async def test_a_grace_does_not_lengthen_the_round(choir: Choir) -> None:
    choir.let("cat", Script(("c",), ending="hang"))
    panel = await ask(choir, timeout_s=0.3, grace_s=60.0)
    assert [failure.reason for failure in panel.failures] == ["deadline"]


async def test_the_grace_begins_with_the_quorum_and_not_with_the_first_answer(choir: Choir) -> None:
    choir.let("bob", Script(("b",), pause_s=0.3))
    choir.let("cat", Script(("c",), pause_s=0.3))
    panel = await ask(choir, quorum=3, grace_s=0.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)
