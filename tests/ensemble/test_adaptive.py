"""Samples that stop once the lead is safe: how many are asked, and what is told."""

import pytest

from cappella.config import Ensemble
from cappella.config.options import Options, Seat
from cappella.config.overrides import Overrides
from cappella.config.weighing import Adaptive
from cappella.ensemble.adaptive import certainty_of_lead
from cappella.ensemble.settings import resolve
from cappella.telemetry import trace
from cappella.types import Capabilities, Prompt, Sampling
from support.fake_engines import FakeEngines
from support.scripted_engine import Json, Script

SIXTEEN = Adaptive()


def says(*words: str) -> object:
    """A member that gives these answers in order, however many are asked at once."""
    left = list(words)

    def script(body: Json) -> Script:
        count = body.get("n", 1)
        texts = [left.pop(0) for _ in range(count)]
        return Script(samples=tuple(texts)) if count > 1 else Script((texts[0],))

    return script


def seats(*names: str, seed: int | None = None) -> tuple[Seat, ...]:
    return tuple(Seat(name, name, Sampling(temperature=0.7, seed=seed), samples=16) for name in names)


def asked(fake_engines: FakeEngines, name: str) -> list[int]:
    return [body.get("n", 1) for body in fake_engines.servers[name].bodies]


async def test_no_more_are_asked_once_all_agree(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", says(*["It is 42."] * 16))  # type: ignore[arg-type]
    run = await fake_engines.run(strategy="vote", panel=seats("ann"), samples=SIXTEEN)
    assert asked(fake_engines, "ann") == [4]
    assert [answer.name for answer in run.answers] == ["ann~1", "ann~2", "ann~3", "ann~4"]
    assert trace.fusion(run, trace.FullDetail())["sampled"] == {"asked": 4, "most": 16, "lead": 0.969}
    assert run.status == "ok"


async def test_as_many_more_as_can_make_the_lead_safe(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", says("42", "42", "7", "42", *["42"] * 12))  # type: ignore[arg-type]
    run = await fake_engines.run(strategy="vote", panel=seats("ann", seed=5), samples=SIXTEEN)
    first, second, *more = asked(fake_engines, "ann")
    assert (first, second, more) == (4, 3, [])
    assert [body["seed"] for body in fake_engines.servers["ann"].bodies] == [5, 9]
    assert len({answer.name for answer in run.answers}) == 7
    assert run.content == "42"


async def test_without_a_safe_lead_all_are_asked(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", says(*["42", "7"] * 8))  # type: ignore[arg-type]
    run = await fake_engines.run(strategy="vote", panel=seats("ann"), samples=SIXTEEN)
    assert (sum(asked(fake_engines, "ann")), len(run.answers)) == (16, 16)
    told = trace.fusion(run, trace.FullDetail())["sampled"]
    assert (told["asked"], told["lead"]) == (16, 0.5)


async def test_all_seats_count_together(fake_engines: FakeEngines) -> None:
    for name in ("ann", "bob"):
        fake_engines.let(name, says(*["17*23 = 381.", "381"] * 8))  # type: ignore[arg-type]
    await fake_engines.run(strategy="vote", panel=seats("ann", "bob"), samples=SIXTEEN)
    assert (asked(fake_engines, "ann"), asked(fake_engines, "bob")) == ([2], [2])


async def test_a_seat_that_fails_ends_it(fake_engines: FakeEngines) -> None:
    answers = says(*["42", "7", "42", "7"])
    fake_engines.let("ann", lambda body: answers(body) if asked(fake_engines, "ann") == [4] else Script(ending="break"))  # type: ignore[operator]
    run = await fake_engines.run(strategy="vote", panel=seats("ann"), samples=SIXTEEN, analysis="off")
    assert (len(run.answers), run.status) == (4, "degraded")


@pytest.mark.parametrize(("first", "second", "sure"), [(0, 0, 0.5), (3, 0, 0.9375), (4, 0, 0.96875), (5, 5, 0.5)])
def test_how_sure_a_lead_is(first: int, second: int, sure: float) -> None:
    assert certainty_of_lead(first, second) == pytest.approx(sure)


def test_the_seats_of_a_config_and_of_a_request_have_the_most() -> None:
    ensemble = Ensemble.model_validate({"panel": ["ann"], "judge": "ann", "samples": {"most": 8, "until": 0.9}})
    assert [seat.samples for seat in ensemble.seats] == [8]
    models = {"ann": type("Model", (), {"capabilities": Capabilities()})()}
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    options = Options.model_validate({"samples": {"most": 4}})
    settings = resolve("x", ensemble, models, Overrides(options=options), prompt, ensemble.judge.sampling)
    assert ([seat.samples for seat in settings.panel], settings.samples) == ([4], Adaptive(most=4))


@pytest.mark.parametrize(("samples", "quorum", "asks"), [(SIXTEEN, 8, [8]), (Adaptive(until=0.7), 2, [2])])
async def test_the_quorum_is_asked_even_if_the_lead_is_safe_before(
    fake_engines: FakeEngines, samples: Adaptive, quorum: int, asks: list[int]
) -> None:
    fake_engines.let("ann", says(*["42"] * 16))  # type: ignore[arg-type]
    run = await fake_engines.run(strategy="vote", panel=seats("ann"), samples=samples, quorum=quorum)
    assert (asked(fake_engines, "ann"), run.status, len(run.answers)) == (asks, "ok", quorum)


async def test_after_the_quorum_portions_leave_the_judge_its_share_of_the_deadline(fake_engines: FakeEngines) -> None:
    answers, late = says(*["42", "7", "42", "7"]), Script(("42",), ending="held")
    fake_engines.let("ann", lambda body: answers(body) if asked(fake_engines, "ann") == [4] else late)  # type: ignore[operator]
    run = await fake_engines.run(panel=seats("ann"), samples=SIXTEEN, analysis="off", deadline_s=2.0)
    assert (run.failure_reason, run.answer.name) == (None, "judge")


async def test_a_seat_with_one_sample_keeps_its_name_beside_one_with_several(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", says(*["42"] * 16))  # type: ignore[arg-type]
    fake_engines.let("bob", Script(("42",)))
    panel = (*seats("ann"), Seat("bob", "bob", Sampling(temperature=0.7)))
    run = await fake_engines.run(strategy="vote", panel=panel, samples=SIXTEEN)
    assert {answer.name for answer in run.answers} <= set(run.settings.answer_names)
    assert "bob" in {answer.name for answer in run.answers}
