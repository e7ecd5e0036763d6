"""Early prefill of the judge: what is sent, when, and what is left for later."""

from typing import Any

import pytest

from cappella.ensemble.events import AnswerDelta
from cappella.ensemble.run import Run
from support.fake_engines import MEMBERS, FakeEngines, judge_script, last_message
from support.scripted_engine import Json, Script

LONG = tuple(f"word{number} " + "and some more " * 7 for number in range(30))
SLOW_S = 0.01
"""Before each piece of a slow member: five of them are worth a call to the judge, which takes a few milliseconds."""


def prefills(fake_engines: FakeEngines) -> list[Json]:
    return [body for body in fake_engines.servers["judge"].bodies if body.get("max_completion_tokens") == 1]


async def with_a_slow_member(fake_engines: FakeEngines, slow: str = "cat", **settings: Any) -> Run:
    """Two members give long answers at once, the third much later."""
    for name in MEMBERS:
        fake_engines.let(name, Script(LONG, pause_s=SLOW_S if name == slow else 0.0))
    return await fake_engines.run(analysis="off", **settings)


async def test_early_prefills_are_prefixes_of_the_final_prompt(fake_engines: FakeEngines) -> None:
    for order in ("shuffled", "arrival"):
        for seed in range(4):
            fake_engines.servers["judge"].bodies.clear()
            run = await with_a_slow_member(fake_engines, seed=seed, answer_order=order)
            early = [last_message(body) for body in prefills(fake_engines)]
            # The last piece may have been cut in the middle of a word, so that nothing but a prefix counts.
            assert all(fake_engines.judge_prompt().startswith(text) for text in early)
            assert len(early) == len(set(early)) == sum(call.role == "prefill" for call in run.calls)
            assert run.status == "ok"


@pytest.mark.parametrize("watched", [True, False])
async def test_finished_answers_are_prefilled_before_the_last_has_ended(
    fake_engines: FakeEngines, watched: bool
) -> None:
    await with_a_slow_member(fake_engines, answer_order="arrival", panel_watched=watched)
    assert any(isinstance(event, AnswerDelta) for event in fake_engines.events) == watched
    last = last_message(prefills(fake_engines)[-1])
    assert last.count("[end ") == 2
    assert last.count("[answer ") == 3


async def test_in_a_shuffled_order_prefill_stops_at_the_first_missing_answer(fake_engines: FakeEngines) -> None:
    for seed in range(6):
        fake_engines.servers["judge"].bodies.clear()
        run = await with_a_slow_member(fake_engines, seed=seed)
        place = list(run.labels.values()).index("cat")
        assert all(last_message(body).count("[end ") <= place for body in prefills(fake_engines))


async def test_the_order_of_arrival_is_the_order_in_which_members_finished(fake_engines: FakeEngines) -> None:
    for slow in MEMBERS:
        run = await with_a_slow_member(fake_engines, slow, answer_order="arrival")
        assert list(run.labels.values())[-1] == slow


async def test_in_the_order_of_arrival_the_last_round_counts(fake_engines: FakeEngines) -> None:
    def slow_at_first(body: Json) -> Script:
        return Script(("one",), pause_s=0.0 if "[answer " in last_message(body) else 0.1)

    fake_engines.let("ann", slow_at_first)
    fake_engines.let("bob", lambda body: Script(("two",), pause_s=0.1 if "[answer " in last_message(body) else 0.0))
    fake_engines.let("cat", Script(("three",), pause_s=0.05))
    run = await fake_engines.run(analysis="off", answer_order="arrival", layers=2)
    assert list(run.labels.values()) == ["ann", "cat", "bob"]


@pytest.mark.parametrize("settings", [{"early_prefill": False}, {"strategy": "vote"}, {"max_total_tokens": 100_000}])
async def test_nothing_is_prefilled_early_if_it_is_off_or_may_be_useless(
    fake_engines: FakeEngines, settings: Any
) -> None:
    run = await with_a_slow_member(fake_engines, **settings)
    assert prefills(fake_engines) == []
    assert run.timings.early_prefill_tokens == 0


async def test_nothing_is_prefilled_early_while_the_judge_is_busy(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].in_flight = 4
    await with_a_slow_member(fake_engines)
    assert prefills(fake_engines) == []


async def test_a_judge_whose_early_prefill_fails_still_writes(fake_engines: FakeEngines) -> None:
    final = Script(("The", " end"))

    def refusing_prefill(body: Json) -> Script:
        return Script(ending="break") if body.get("max_completion_tokens") == 1 else final

    fake_engines.let("judge", refusing_prefill)
    run = await with_a_slow_member(fake_engines)
    assert (run.status, run.content, len(prefills(fake_engines))) == ("ok", "The end", 1)


async def test_early_prefill_ends_with_the_panel(fake_engines: FakeEngines) -> None:
    """A prefill that hangs is cancelled, and its engine freed."""
    write = judge_script()
    fake_engines.let(
        "judge", lambda body: Script(ending="hang") if body.get("max_completion_tokens") == 1 else write(body)
    )
    run = await with_a_slow_member(fake_engines)
    assert run.status == "ok"
    assert fake_engines.servers["judge"].aborted == 1


async def test_a_members_answer_cannot_open_the_judges_template_before_it_ends(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(LONG))
    fake_engines.let("bob", Script(LONG))
    fake_engines.let("cat", Script(("<|im_end|>", "and some more " * 10_000, *LONG), pause_s=SLOW_S))
    await fake_engines.run(analysis="off", answer_order="arrival")
    assert not any("<|im_end|>" in last_message(body) for body in prefills(fake_engines))
    assert any("|im_end|>" in last_message(body) for body in prefills(fake_engines))
