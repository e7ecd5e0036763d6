"""Which answers in free text say the same: by their words, by the judge in one constrained call, or by embeddings."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cappella.config.judge_seat import JudgeSeat
from cappella.config.options import Options, Seat
from cappella.config.overrides import Overrides
from cappella.config.weighing import Agreement, Selection
from cappella.engines.vllm import scores
from cappella.ensemble import context
from cappella.ensemble.grouping import alike
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.run import Run
from cappella.ensemble.settings import resolve
from cappella.errors import RequestError
from cappella.telemetry import trace
from cappella.threads import off_loop_if_large
from cappella.types import Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines, choice_script, last_message
from support.scripted_engine import Json, Script
from support.scripted_pooling import ScriptedPooling, add_pooling, pooling_config

BY_JUDGE = Agreement(by="judge")
BY_EMBEDDING = Agreement(by="embedding", model="emb", alike=0.9)
SKY = ("The air scatters blue light the most.", "Because of the sea.", "Blue is what molecules send about most.")


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


def grouping(*alike: str) -> Callable[[Json], Script]:
    """A judge who finds that answers with one of these words say the same."""

    def script(body: Json) -> Script:
        letters: list[str] = body["response_format"]["json_schema"]["schema"]["required"]
        texts = {each: last_message(body).split(f"[answer {each} ")[1].split("[end ")[0] for each in letters}
        same = [each for each in letters if any(word in texts[each] for word in alike)]
        return Script((json.dumps({each: same[0] if each in same else each for each in letters}),))

    return script


def let_judge_group(fake_engines: FakeEngines, script: Callable[[Json], Script], **shares: float) -> None:
    chooses = choice_script(**shares)
    fake_engines.let("judge", lambda body: chooses(body) if "structured_outputs" in body else script(body))


def told(run: Run) -> Json:
    return dict(trace.fusion(run, trace.FullDetail()))


async def test_a_vote_counts_what_the_judge_finds_to_say_the_same(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, *SKY)
    let_judge_group(fake_engines, grouping("air", "molecules"))
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE)
    assert (run.content, run.status) == (SKY[0], "ok")
    assert told(run)["votes"] == {"ann": ["ann", "cat"], "bob": ["bob"]}
    seen = told(run)["agreement"]
    assert (seen["by"], sorted(map(sorted, seen["groups"]))) == ("judge", [["ann", "cat"], ["bob"]])
    (call,) = [each for each in run.calls if each.seat == "judge"]
    assert call.role == "agreement"
    assert told(run)["usage"]["prompt_tokens"] == sum(each.usage.prompt_tokens for each in run.calls) == 4 * 10
    (body,) = fake_engines.servers["judge"].bodies
    assert body["max_completion_tokens"] == 64
    of_each = body["response_format"]["json_schema"]["schema"]["properties"]
    assert [each["enum"] for each in of_each.values()] == [["A"], ["A", "B"], ["A", "B", "C"]]


async def test_without_it_words_are_compared_and_nobody_is_asked(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "Rain.", "Because of the sea.", "rain")
    run = await fake_engines.run(strategy="vote")
    assert (run.content, fake_engines.servers["judge"].bodies) == ("Rain.", [])
    assert "agreement" not in told(run)


@pytest.mark.parametrize("texts", [("17*23 = 391.", "391", "It is 390"), ("Rain.", "rain", "RAIN")])
async def test_values_and_equal_texts_need_no_judge(fake_engines: FakeEngines, texts: tuple[str, ...]) -> None:
    let_members_answer(fake_engines, *texts)
    run = await fake_engines.run("What is 17*23?", strategy="vote", agreement=BY_JUDGE)
    assert (run.verdict.chosen, fake_engines.servers["judge"].bodies) == ("ann", [])


async def test_equal_texts_are_shown_to_the_judge_once(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(samples=("Rain.", "rain", "Wet weather", "Sun")))
    let_judge_group(fake_engines, grouping("Rain", "Wet"))
    panel = (Seat("ann", "ann", samples=4),)
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE, panel=panel)
    assert len(fake_engines.servers["judge"].bodies[0]["response_format"]["json_schema"]["schema"]["required"]) == 3
    assert told(run)["votes"] == {"ann~1": ["ann~1", "ann~2", "ann~3"], "ann~4": ["ann~4"]}


async def test_select_weighs_who_says_the_same(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, *SKY)
    let_judge_group(fake_engines, grouping("air", "molecules"), air=0.3, sea=0.36, molecules=0.34)
    run = await fake_engines.run(strategy="select", agreement=BY_JUDGE)
    assert run.verdict.chosen == "cat"
    assert told(run)["evidence"]["agreement"] == {"ann": 1.0, "bob": 0.0, "cat": 1.0}
    assert {call.role for call in run.calls if call.seat == "judge"} == {"choice", "agreement"}


async def test_what_says_the_same_as_another_says_what_that_one_says(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "one", "two", "three")
    let_judge_group(fake_engines, lambda _: Script(('{"A": "A", "B": "A", "C": "B"}',)))
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE)
    assert [len(each) for each in told(run)["votes"].values()] == [3]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(("They agree.",)), "judge_schema_mismatch"),
        (Script(('{"A": "A", "B": "Q", "C": "C"}',)), "judge_schema_mismatch"),
        (Script(('["A"]',)), "judge_schema_mismatch"),
        (Script(()), "empty_answer"),
        (Script((), reasoning="A and B"), "empty_answer"),
        (Script((), ending="break"), "engine_broke"),
        (Script(refuse=(400, {"error": {"message": "no"}})), "rejected"),
    ],
)
async def test_if_the_judge_fails_words_count_and_the_run_says_so(
    fake_engines: FakeEngines, script: Script, reason: str
) -> None:
    let_members_answer(fake_engines, "Rain.", "Because of the sea.", "rain")
    let_judge_group(fake_engines, lambda _: script)
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE)
    assert (run.content, run.status, run.failure_reason) == ("Rain.", "degraded", reason)
    seen = told(run)["agreement"]
    assert (seen["by"], seen["failure_reason"]) == ("words", reason)
    assert sorted(map(sorted, seen["groups"])) == [["ann", "cat"], ["bob"]]
    chosen = await fake_engines.run(strategy="select", agreement=BY_JUDGE, select=Selection(by=("agreement",)))
    assert (chosen.content, told(chosen)["evidence"]["agreement"]["bob"]) == ("Rain.", 0.0)


async def test_the_next_judge_groups_where_the_first_is_dead(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, *SKY)
    fake_engines.engines["judge"].status.state = "failed"
    groups = grouping("air", "molecules")
    fake_engines.let("bob", lambda body: groups(body) if "response_format" in body else Script((SKY[1],)))
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE, next_judges=(JudgeSeat("bob"),))
    assert (told(run)["agreement"]["by"], run.content) == ("judge", SKY[0])
    assert [each.model for each in run.failed_judges] == ["judge"]


async def test_after_a_round_below_the_quorum_the_next_judge_goes_on_with_the_groups_that_there_are(
    fake_engines: FakeEngines,
) -> None:
    """The first judge groups the answers of the first round, and breaks when it is to choose."""
    calls = Counter[str]()

    def member(name: str, text: str) -> Callable[[Json], Script]:
        def script(body: Json) -> Script:
            if name == "cat" and "structured_outputs" in body:
                return choice_script(Fog=0.9)(body)
            calls[name] += 1
            return Script((text,)) if calls[name] == 1 else Script(refuse=(400, {"error": {"message": "no"}}))

        return script

    for name, text in zip(MEMBERS, ("Rain.", "Sun.", "Fog."), strict=True):
        fake_engines.let(name, member(name, text))
    let_judge_group(fake_engines, grouping("none"))
    groups = fake_engines.servers["judge"].script
    fake_engines.let("judge", lambda body: Script((), ending="break") if "structured_outputs" in body else groups(body))
    run = await fake_engines.run(
        strategy="vote", layers=3, agreement=BY_JUDGE, early_prefill=False, next_judges=(JudgeSeat("cat"),)
    )
    assert (run.content, len(run.rounds), set(calls.values())) == ("Fog.", 2, {2})
    assert [each.model for each in run.failed_judges] == ["judge"]


async def test_a_timeout_while_judges_change_leaves_the_run_with_one_of_them(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a long conversation is made ready for the next judge when the time for grouping ends."""
    made = list[object]()

    async def too_slow_at_first(*work: Any) -> Any:
        made.append(work)
        if len(made) == 1:
            raise TimeoutError
        return await off_loop_if_large(*work)

    monkeypatch.setattr(context, "off_loop_if_large", too_slow_at_first)
    let_members_answer(fake_engines, "Rain.", "Sun.", "Fog.")
    fake_engines.let("judge", Script((), ending="break"))
    fake_engines.let("cat", lambda body: choice_script(Rain=0.9)(body) if "[answer" in str(body) else Script(("Fog.",)))
    run = await fake_engines.run(strategy="vote", agreement=BY_JUDGE, next_judges=(JudgeSeat("cat"),))
    assert (run.content, run.settings.judge, len(made)) == ("Rain.", "cat", 2)
    assert [each.model for each in run.failed_judges] == ["judge"]
    asked = [(call.seat, call.role) for call in run.calls if call.role != "panel"]
    assert asked == [("judge", "agreement"), ("judge", "choice"), ("cat", "choice")]


@pytest.fixture
async def embedder(fake_engines: FakeEngines, tmp_path: Path) -> ScriptedPooling:
    emb: ScriptedPooling = (await add_pooling(fake_engines, tmp_path))["emb"]
    emb.vector = lambda text: [0.1, 5.0] if "sea" in text else [1.0, 0.0 if "air" in text else 0.2]
    return emb


async def test_an_embedding_engine_finds_what_says_the_same(
    fake_engines: FakeEngines, embedder: ScriptedPooling
) -> None:
    let_members_answer(fake_engines, *SKY)
    run = await fake_engines.run(strategy="vote", agreement=BY_EMBEDDING)
    assert (run.content, run.status, fake_engines.servers["judge"].bodies) == (SKY[0], "ok", [])
    assert told(run)["agreement"] == {"by": "embedding", "groups": [["ann", "cat"], ["bob"]]}
    assert [(call.role, call.usage.prompt_tokens) for call in run.calls if call.seat == "emb"] == [("agreement", 10)]
    (body,) = embedder.bodies
    assert (body["input"], body["truncate_prompt_tokens"]) == (list(SKY), -1)
    strict = await fake_engines.run(strategy="vote", agreement=BY_EMBEDDING.model_copy(update={"alike": 0.99}))
    assert len(told(strict)["agreement"]["groups"]) == 3


@pytest.mark.parametrize(("extract", "end"), [("auto", "The answer is {}."), ("last_line", "{}")])
async def test_answers_of_one_reasoning_and_other_values_are_not_alike(
    fake_engines: FakeEngines, embedder: ScriptedPooling, extract: str, end: str
) -> None:
    """A text's embedding is that of most of its words."""
    reasoning = "The seat of the government has been there for centuries, in spite of many wars.\n"
    embedder.vector = lambda text: [1.0, 0.0] if "government" in text or "paris" in text else [0.0, 1.0]
    let_members_answer(fake_engines, *(reasoning + end.format(city) for city in ("Lyon", "Paris", "In Paris")))
    run = await fake_engines.run("Which city?", strategy="vote", agreement=BY_EMBEDDING, extract=extract)
    assert (sorted(embedder.bodies[0]["input"]), run.verdict.chosen) == (["in paris", "lyon", "paris"], "bob")
    assert told(run)["agreement"]["groups"] == [["ann"], ["bob", "cat"]]


async def test_a_text_is_no_control_token_of_the_embedding_engine(
    fake_engines: FakeEngines, embedder: ScriptedPooling
) -> None:
    let_members_answer(fake_engines, "<|im_end|> air", "sea", "molecules")
    await fake_engines.run(strategy="vote", agreement=BY_EMBEDDING)
    assert "<|im_end|>" not in embedder.bodies[0]["input"][0]


async def test_the_trace_tells_what_was_read_in_each_answer_of_a_group(
    fake_engines: FakeEngines, embedder: ScriptedPooling
) -> None:
    let_members_answer(fake_engines, "The answer is in Paris.", "The answer is Lyon.", "The answer is Paris.")
    embedder.vector = lambda text: [1.0, 0.0] if "paris" in text else [0.0, 1.0]
    run = await fake_engines.run("Which city?", strategy="vote", agreement=BY_EMBEDDING)
    assert told(run)["votes"] == {"ann": ["ann", "cat"], "bob": ["bob"]}
    assert told(run)["extracted"]["values"] == {"ann": "in paris", "bob": "lyon", "cat": "paris"}


@pytest.mark.parametrize(("dimensions", "is_on_loop"), [(2, True), (20_000, False)])
async def test_large_embeddings_are_read_and_compared_off_the_event_loop(
    fake_engines: FakeEngines,
    embedder: ScriptedPooling,
    monkeypatch: pytest.MonkeyPatch,
    dimensions: int,
    is_on_loop: bool,
) -> None:
    threads, loop = list[bool](), threading.current_thread()

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any) -> Any:
            threads.append(threading.current_thread() is loop)
            return work(*args)

        return do

    monkeypatch.setattr("cappella.ensemble.grouping.alike", noted(alike))
    monkeypatch.setattr("cappella.engines.vllm.scores.embeddings", noted(scores.embeddings))
    let_members_answer(fake_engines, *SKY)
    embedder.vector = lambda text: [1.0, float("sea" in text)] * (dimensions // 2)
    run = await fake_engines.run(strategy="vote", agreement=BY_EMBEDDING)
    assert (run.content, threads) == (SKY[0], [is_on_loop, is_on_loop])


@pytest.mark.parametrize("vector", [[float("nan"), 1.0], []], ids=["no number", "of another length"])
async def test_embeddings_that_cannot_be_compared_are_a_failure_that_is_told(
    fake_engines: FakeEngines, embedder: ScriptedPooling, vector: list[float]
) -> None:
    let_members_answer(fake_engines, "Rain.", "Because of the sea.", "rain")
    embedder.vector = lambda text: vector if "sea" in text else [1.0]
    run = await fake_engines.run(strategy="vote", agreement=BY_EMBEDDING)
    assert (run.content, run.status, run.failure_reason) == ("Rain.", "degraded", "engine_broke")
    assert told(run)["agreement"]["by"] == "words"


async def test_what_is_alike_has_no_default_of_ours(fake_engines: FakeEngines, embedder: ScriptedPooling) -> None:
    let_members_answer(fake_engines, *SKY)
    settings = fake_engines.settings(strategy="vote", agreement=BY_EMBEDDING)
    # Past the check of settings, which refuse it.
    settings = settings.model_copy(update={"agreement": BY_EMBEDDING.model_copy(update={"alike": None})})
    with pytest.raises(AssertionError):
        await Pipeline(fake_engines.engines).run(Prompt([{"role": "user", "content": "Hi"}]), settings, print)
    assert not embedder.bodies


@pytest.mark.parametrize(
    "agreement", [{"by": "embedding", "alike": 0.9}, {"by": "embedding", "model": "rm", "alike": 0.9}, {"model": "ann"}]
)
def test_a_model_that_embeds_nothing_is_an_error(agreement: Mapping[str, Any]) -> None:
    config = pooling_config()
    options, prompt = Options(agreement=Agreement(**agreement)), Prompt([{"role": "user", "content": "Hi"}])
    with pytest.raises(RequestError) as caught:
        resolve("default", config.ensembles["default"], config.models, Overrides(options=options), prompt, Sampling())
    assert caught.value.param == "fusion.agreement"
