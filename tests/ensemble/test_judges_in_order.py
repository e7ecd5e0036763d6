"""A list of judges: the next one judges where the first is dead, and the run tells it."""

import json
from typing import Any

import pytest

from cappella.config import Ensemble, Model, RemoteModel
from cappella.config.judge_seat import JudgeSeat
from cappella.config.options import Gate, Options
from cappella.config.overrides import Overrides
from cappella.config.weighing import Agreement
from cappella.ensemble.events import RunStarted
from cappella.ensemble.settings import resolve
from cappella.errors import ModelNotReady
from cappella.types import OutputFormat, Prompt, Sampling
from support.fake_engines import FakeEngines, choice_script, judge_script, last_message
from support.scripted_engine import Json, Script

HI = [{"role": "user", "content": "Hi"}]
CAT = JudgeSeat("cat", Sampling(temperature=0.1), "Be brief.", 99)


def member_that_judges(body: Json) -> Script:
    judge = judge_script(final=Script(("By cat",)))
    return judge(body) if "[answer " in last_message(body) else Script()


@pytest.mark.parametrize("analysis", ["before", "alongside", "off"])
async def test_the_next_judge_judges_where_the_first_is_not_up(fake_engines: FakeEngines, analysis: str) -> None:
    fake_engines.engines["judge"].status.state = "failed"
    fake_engines.let("cat", member_that_judges)
    run = await fake_engines.run(analysis=analysis, next_judges=(CAT,))
    assert (run.status, run.failure_reason, run.content) == ("degraded", "not_ready", "By cat")
    assert run.settings.judge == "cat"
    assert [(each.model, each.reason) for each in run.failed_judges] == [("judge", "not_ready")]
    assert next(event.judge for event in fake_engines.events if isinstance(event, RunStarted)) == "cat"
    final = fake_engines.servers["cat"].bodies[-1]
    assert final["temperature"] == 0.1
    assert "Be brief." in last_message(final)
    assert fake_engines.servers["judge"].bodies == []


@pytest.mark.parametrize("analysis", ["before", "alongside", "off"])
async def test_the_next_judge_judges_the_same_answers_where_the_first_breaks(
    fake_engines: FakeEngines, analysis: str
) -> None:
    fake_engines.let("judge", Script((), ending="break"))
    fake_engines.let("cat", member_that_judges)
    run = await fake_engines.run(analysis=analysis, next_judges=(JudgeSeat("cat"),))
    assert (run.status, run.failure_reason, run.content) == ("degraded", "engine_broke", "By cat")
    assert [(each.model, each.reason) for each in run.failed_judges] == [("judge", "engine_broke")]
    assert len(run.rounds) == 1
    assert len(fake_engines.servers["ann"].bodies) == 1
    assert any(call.seat == "judge" for call in run.calls)
    assert (run.analysis is not None) == (analysis != "off")


async def test_a_judge_that_breaks_in_the_middle_of_its_answer_is_not_replaced(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", Script(("Half",), ending="break"))
    fake_engines.let("cat", member_that_judges)
    run = await fake_engines.run(analysis="off", next_judges=(JudgeSeat("cat"),))
    assert (run.status, run.content, run.failed_judges) == ("degraded", "\n\nHello there".strip(), [])


async def test_a_judge_that_refuses_is_not_dead(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", Script(refuse=(400, {"error": {"message": "no"}})))
    fake_engines.let("cat", member_that_judges)
    run = await fake_engines.run(analysis="off", next_judges=(JudgeSeat("cat"),))
    assert (run.failure_reason, run.content, run.failed_judges) == ("rejected", "Hello there", [])


async def test_where_all_judges_are_dead_the_best_member_answers(fake_engines: FakeEngines) -> None:
    for name in ("judge", "cat"):
        fake_engines.engines[name].status.state = "failed"
    run = await fake_engines.run(analysis="off", next_judges=(JudgeSeat("cat"),))
    assert (run.status, run.content, run.settings.judge) == ("degraded", "Hello there", "judge")


async def test_a_judge_that_loads_is_waited_for_only_where_no_other_is_up(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "loading"
    with pytest.raises(ModelNotReady):
        await fake_engines.run(analysis="off")
    fake_engines.let("cat", member_that_judges)
    run = await fake_engines.run(analysis="off", next_judges=(JudgeSeat("cat"),))
    assert run.content == "By cat"


@pytest.mark.parametrize("strategy", ["debate", "select"])
async def test_other_strategies_go_on_with_the_next_judge(fake_engines: FakeEngines, strategy: Any) -> None:
    fake_engines.let("judge", Script((), ending="break"))

    def judges(body: Json) -> Script:
        if "structured_outputs" in body:
            token = {"token": "A", "logprob": -0.1}
            return Script(("A",), logprobs=({**token, "top_logprobs": [token]},))
        return Script((json.dumps(body["model"]),))

    fake_engines.let("cat", judges)
    run = await fake_engines.run(strategy=strategy, analysis="off", review=True, next_judges=(JudgeSeat("cat"),))
    assert run.settings.judge == "cat"
    assert run.verdict.answer.content
    assert len([call for call in run.calls if call.role == "review"]) == 3


async def test_the_judge_that_the_trace_names_has_grouped_and_chosen(fake_engines: FakeEngines) -> None:
    """The first one could choose, and breaks as it groups."""

    def cat(body: Json) -> Script:
        if "structured_outputs" in body:
            return choice_script(Fog=0.9, Sun=0.06, Rain=0.04)(body)
        return Script(('{"A": "A", "B": "B", "C": "C"}' if "response_format" in body else "Fog.",))

    choose = choice_script(Rain=0.9, Sun=0.06, Fog=0.04)
    fake_engines.let("judge", lambda body: choose(body) if "structured_outputs" in body else Script((), ending="break"))
    for name, script in (("ann", Script(("Rain.",))), ("bob", Script(("Sun.",))), ("cat", cat)):
        fake_engines.let(name, script)
    run = await fake_engines.run(strategy="select", agreement=Agreement(by="judge"), next_judges=(JudgeSeat("cat"),))
    assert (run.content, run.settings.judge) == ("Fog.", "cat")
    assert run.verdict.probabilities == pytest.approx({"ann": 0.04, "bob": 0.06, "cat": 0.9})
    assert {call.seat for call in run.calls if call.role == "choice"} == {"cat"}
    assert list(run.verdict.evidence or ()) == ["judge", "agreement"]


@pytest.mark.parametrize(
    ("prompt", "options", "left"),
    [
        (Prompt(HI), Options(), ["near", "far"]),
        (Prompt(HI, logprobs=2), Options(), ["near"]),
        (Prompt(HI, output_format=OutputFormat("structured_outputs", {"choice": ["x"]})), Options(), ["near"]),
        (Prompt(HI, output_format=OutputFormat("response_format", {"type": "json_object"})), Options(), ["near"]),
        (Prompt(HI), Options(analysis="before"), ["near"]),
        (Prompt(HI), Options(strategy="select"), ["near", "scorer"]),
        (Prompt(HI), Options(early_exit="judge"), ["near"]),
    ],
)
def test_judges_that_lack_what_the_request_needs_are_not_next(
    prompt: Prompt, options: Options, left: list[str]
) -> None:
    local = Model.model_validate({"weights": "w", "max_model_len": 100, "kv_cache_bytes": "1MiB"})
    scorer = local.model_copy(update={"task": "reward"})
    far = RemoteModel(url="http://10.0.0.7:8000/v1", max_model_len=100, json_schema=False, logprobs=False)
    judges = ["judge", "near", "far", "scorer"]
    found = Ensemble.model_validate({"panel": ["ann", "bob"], "judge": judges, "analysis": "off"})
    models: dict[str, Model | RemoteModel] = {
        **dict.fromkeys(("ann", "bob", "judge", "near"), local),
        "far": far,
        "scorer": scorer,
    }
    settings = resolve("default", found, models, Overrides(options=options), prompt, Sampling())
    assert [seat.model for seat in settings.next_judges] == left


async def test_the_living_judge_goes_on_from_the_results_of_tools(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "failed"
    fake_engines.let("cat", Script(("By cat",)))
    run = await fake_engines.run(gate=Gate("tools", "judge"), next_judges=(JudgeSeat("cat"),))
    assert (run.status, run.content) == ("bypassed", "By cat")
    assert not fake_engines.servers["ann"].bodies
