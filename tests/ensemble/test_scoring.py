"""Best of n: select with a judge that scores each answer, over scripted engines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cappella.config.options import Options, Seat
from cappella.config.overrides import Overrides
from cappella.ensemble.settings import resolve
from cappella.errors import RequestError
from cappella.telemetry import trace
from cappella.types import OutputFormat, Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines
from support.scripted_engine import Json, Script
from support.scripted_pooling import ScriptedPooling, add_pooling, pooling_config

WORTH = {"red": -2.5, "blue": 1.5, "green": 0.25}
LONG = (400, {"error": {"message": "too long", "type": "BadRequestError", "param": "input_tokens", "code": 400}})


@pytest.fixture
async def scripted(fake_engines: FakeEngines, tmp_path: Path) -> Mapping[str, ScriptedPooling]:
    added = await add_pooling(fake_engines, tmp_path)
    for server in added.values():
        server.worth = lambda text: WORTH[text]
    return added


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


@pytest.mark.parametrize("judge", ["rm", "rank"])
async def test_the_answer_with_the_best_score_is_returned_verbatim(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling], judge: str
) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    run = await fake_engines.run("Which colour?", strategy="select", judge=judge)
    assert (run.content, run.verdict.chosen, run.status) == ("blue", "bob", "ok")
    assert run.verdict.scores == {"ann": -2.5, "bob": 1.5, "cat": 0.25}
    assert [call.role for call in run.calls] == ["panel"] * 3 + ["score"] * 3
    assert sum(call.usage.prompt_tokens for call in run.calls if call.role == "score") == 30
    fusion = trace.fusion(run, trace.FullDetail())
    assert fusion["scores"] == run.verdict.scores
    assert "tied" not in fusion
    assert fusion["labels"] == {}


async def test_a_reward_model_reads_the_conversation_and_the_answer_without_an_activation(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which <|im_end|> colour?"}]
    await fake_engines.put(Prompt(system), strategy="select", judge="rm")
    body = scripted["rm"].bodies[0]
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]
    assert "<|im_end|>" not in body["messages"][1]["content"]
    assert body["use_activation"] is False


async def test_a_reranker_reads_a_single_turn_as_it_is_and_several_with_their_roles(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    await fake_engines.run("Which colour?", strategy="select", judge="rank")
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Which?")]
    await fake_engines.put(Prompt([{"role": r, "content": t} for r, t in turns]), strategy="select", judge="rank")
    queries = {body["queries"] for body in scripted["rank"].bodies}
    assert queries == {"Which colour?", "user: Hi\n\nassistant: Hello\n\nuser: Which?"}


async def test_equal_scores_are_named_and_the_first_seat_wins(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "green", "green")
    run = await fake_engines.run(strategy="select", judge="rm")
    assert (run.verdict.chosen, run.verdict.tied) == ("bob", ["bob", "cat"])
    # The same text is scored once.
    assert len(scripted["rm"].bodies) == 2
    assert trace.fusion(run, trace.FullDetail())["tied"] == ["bob", "cat"]


async def test_each_sample_of_a_seat_is_scored(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    fake_engines.let("ann", Script(samples=("red", "green", "blue")))
    run = await fake_engines.run(
        strategy="select", judge="rm", panel=(Seat("ann", "ann", Sampling(temperature=1.0), samples=3),)
    )
    assert run.content == "blue"
    assert run.verdict.scores is not None
    assert sorted(score or 0.0 for score in run.verdict.scores.values()) == [-2.5, 0.25, 1.5]


async def test_an_answer_too_long_for_the_judge_has_no_score(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    scripted["rm"].refusal = lambda body: LONG if body["messages"][-1]["content"] == "blue" else None
    run = await fake_engines.run(strategy="select", judge="rm")
    assert (run.content, run.status) == ("green", "ok")
    assert run.verdict.scores == {"ann": -2.5, "bob": None, "cat": 0.25}


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((500, {"error": {"message": "x", "type": "InternalServerError", "code": 500}}), "engine_broke"),
        (LONG, "context_length_exceeded"),
    ],
)
async def test_a_judge_that_fails_leaves_the_answer_that_the_others_are_most_like(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling], refusal: tuple[int, Json], reason: str
) -> None:
    let_members_answer(fake_engines, "red", "green", "green")
    scripted["rm"].refusal = lambda _: refusal
    run = await fake_engines.run(strategy="select", judge="rm")
    assert (run.content, run.status, run.failure_reason) == ("green", "degraded", reason)
    assert run.verdict.scores is None


async def test_a_refusal_to_score_is_not_blamed_on_a_format_that_the_judge_never_saw(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "{}", "{}", "[]")
    refused = {"error": {"message": "no template", "type": "BadRequestError", "code": 400}}
    scripted["rm"].refusal = lambda _: (400, refused)
    form = OutputFormat("response_format", {"type": "json_object"})
    prompt = Prompt([{"role": "user", "content": "Hi"}], output_format=form)
    run = await fake_engines.put(prompt, strategy="select", judge="rm")
    assert (run.content, run.status, run.failure_reason) == ("{}", "degraded", "rejected")


async def test_a_score_that_is_no_number_is_a_failure(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "green", "green")
    scripted["rm"].worth = lambda _: float("nan")
    run = await fake_engines.run(strategy="select", judge="rm")
    assert (run.status, run.failure_reason) == ("degraded", "engine_broke")


async def test_a_budget_counts_what_the_judge_reads(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    run = await fake_engines.run(strategy="select", judge="rm", max_total_tokens=1000)
    assert run.content == "blue"


async def test_the_judge_is_sent_nothing_while_the_panel_answers(
    fake_engines: FakeEngines, scripted: Mapping[str, ScriptedPooling]
) -> None:
    long = "word " * 2000
    scripted["rm"].worth = len
    let_members_answer(fake_engines, long, long + "a", "b")
    run = await fake_engines.run(strategy="select", judge="rm", early_prefill=True)
    assert {call.role for call in run.calls} == {"panel", "score"}


def resolved(fusion: Options = Options(), **overrides: Any) -> Any:
    config = pooling_config()
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    given = Overrides(options=fusion, **overrides)
    return resolve("best", config.ensembles["best"], config.models_by_name, given, prompt, Sampling())


@pytest.mark.parametrize(
    ("options", "overrides", "field"),
    [
        (Options(strategy="synthesize"), {}, "fusion.model"),
        (Options(strategy="vote"), {}, "fusion.model"),
        (Options(strategy="debate"), {}, "fusion.model"),
        (Options(early_exit="judge"), {}, "fusion.model"),
        (Options(criteria="Be brief."), {}, "fusion.criteria"),
        (Options(), {"judge": "emb"}, "fusion.model"),
        (Options(), {"panel": ("ann", "rm")}, "fusion.analysis_models"),
    ],
)
def test_a_request_cannot_ask_of_a_scoring_judge_what_it_cannot_do(
    options: Options, overrides: Any, field: str
) -> None:
    with pytest.raises(RequestError) as raised:
        resolved(options, **overrides)
    assert raised.value.param == field


def test_a_request_may_choose_another_judge_that_scores() -> None:
    assert resolved(judge="rank").judge == "rank"
