"""A round of the panel over scripted engines."""

import asyncio
from math import inf

import pytest

from cappella.config.options import Grace, Seat
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed, Awake, GraceStarted, Waiting
from cappella.ensemble.grace import WaitPolicy
from cappella.ensemble.panel import SeatRequest, collect_answers
from cappella.ensemble.run import Panel
from cappella.types import Prompt, Sampling
from support.clock import Clock
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.scripted_engine import Json, Script, too_long
from support.sleeper import Sleeper

SEATS = tuple(Seat(name, name) for name in MEMBERS)


async def ask(
    fake_engines: FakeEngines,
    seats: tuple[Seat, ...] = SEATS,
    quorum: int = 2,
    timeout_s: float = 10.0,
    grace_s: Grace | None = None,
    limit_s: float = inf,
    quorate_limit_s: float = 10.0,
) -> Panel:
    messages = [{"role": "user", "content": "Hi"}]
    requests = [
        SeatRequest(seat, fake_engines.engines[seat.model], Prompt(messages, samples=seat.samples)) for seat in seats
    ]
    policy = WaitPolicy(quorum, timeout_s, grace_s, limit_s, quorate_limit_s)
    return await collect_answers(requests, policy, fake_engines.events.append)


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


async def test_with_an_endless_grace_a_round_waits_for_every_member(fake_engines: FakeEngines, clock: Clock) -> None:
    fake_engines.let("cat", Script(("c",), ending="hang"))
    waiting = ask(fake_engines, timeout_s=60, grace_s="never", quorate_limit_s=inf)
    panel = await clock.skip(60, waiting, once=lambda: len(fake_engines.ended) == 2)
    assert [failure.reason for failure in panel.failures] == ["deadline"]


async def test_by_default_a_hung_member_is_cut_soon_after_the_quorum(fake_engines: FakeEngines, clock: Clock) -> None:
    fake_engines.let("cat", Script(("c",), ending="hang"))
    waiting = ask(fake_engines, timeout_s=600, quorate_limit_s=600)
    panel = await clock.skip(5, waiting, once=lambda: len(fake_engines.ended) == 2)
    (failure,) = panel.failures
    assert (failure.name, failure.reason, failure.partial) == ("cat", "straggler", "c")
    # Both answered in far less than half of that time.
    assert failure.cut
    assert (failure.cut.grace_s, 0 < failure.cut.quorum_s < 2.5) == (5.0, True)
    (began,) = [event for event in fake_engines.events if isinstance(event, GraceStarted)]
    assert (began.names, began.grace_s, began.quorum_s) == (["cat"], 5.0, failure.cut.quorum_s)


async def test_neither_grace_nor_timeout_cuts_a_member_that_waits_for_its_engine(
    fake_engines: FakeEngines, clock: Clock
) -> None:
    sleeper = Sleeper(fake_engines, "cat")
    round_ = asyncio.create_task(ask(fake_engines, timeout_s=20, grace_s=10, quorate_limit_s=600))
    assert await eventually(lambda: len(fake_engines.ended) == 2)
    await sleeper.is_waited_for.wait()
    clock.advance(100)
    await asyncio.sleep(0.05)
    assert not round_.done()
    sleeper.wakes.set()
    assert [answer.name for answer in (await round_).answers] == list(MEMBERS)
    told_of = [event for event in fake_engines.events if isinstance(event, Waiting | Awake)]
    assert [(type(event), event.name) for event in told_of] == [(Waiting, "cat"), (Awake, "cat")]
    assert isinstance(told_of[0], Waiting)
    assert told_of[0].reason == "asleep"


async def test_a_member_that_had_to_wait_is_cut_when_it_hangs_afterwards(
    fake_engines: FakeEngines, clock: Clock
) -> None:
    Sleeper(fake_engines, "cat").wakes.set()
    fake_engines.let("cat", Script(("c",), ending="hang"))
    round_ = ask(fake_engines, timeout_s=600, quorate_limit_s=600)
    hangs = lambda: len(fake_engines.ended) == 2 and fake_engines.partial_answer("cat") == "c"
    panel = await clock.skip(12, round_, once=hangs)
    assert [failure.reason for failure in panel.failures] == ["straggler"]


async def test_the_end_of_the_round_cuts_one_that_waits_too(fake_engines: FakeEngines, clock: Clock) -> None:
    sleeper = Sleeper(fake_engines, "cat")
    round_ = ask(fake_engines, quorate_limit_s=100)
    panel = await clock.skip(100, round_, once=lambda: len(fake_engines.ended) == 2 and sleeper.is_waited_for.is_set())
    assert [(failure.name, failure.reason) for failure in panel.failures] == [("cat", "deadline")]


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
    panel = await ask(fake_engines, quorate_limit_s=0.1)
    assert [answer.name for answer in panel.answers] == ["ann", "bob"]
    assert [failure.reason for failure in panel.failures] == ["deadline"]


async def test_below_the_quorum_a_round_may_use_the_judges_time(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((name,), pause_s=0.2))
    panel = await ask(fake_engines, quorum=3, quorate_limit_s=0.0)
    assert [answer.name for answer in panel.answers] == list(MEMBERS)
