"""Models that think before they answer, as members and as the judge: thoughts stay apart, and leave room for the answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from cappella.config.options import Seat
from cappella.config.weighing import Agreement, Selection
from cappella.ensemble.asking import Asking
from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.events import FinalDelta
from cappella.telemetry import trace
from cappella.types import Capabilities, OutputFormat, Prompt, Sampling
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, choice_script, judge_script, last_message
from support.scripted_engine import Json, Script

THOUGHTS = 'B says {"consensus": []}. A, B or C? I take B. yes'


def thinking(fake_engines: FakeEngines, *names: str, **capabilities: Any) -> None:
    for name in names:
        fake_engines.engines[name].capabilities = Capabilities(reasoning=True, **capabilities)


@pytest.mark.parametrize(
    ("sampling", "budget"),
    [
        ({"max_completion_tokens": 50}, 25),
        ({"max_completion_tokens": 32_000}, 32_000 - 1024),
        ({"max_completion_tokens": 50, "thinking_token_budget": 40}, 40),
        ({"thinking_token_budget": 0}, 0),
        ({}, None),
    ],
)
async def test_a_limit_leaves_room_for_the_answer_itself(
    fake_engines: FakeEngines, sampling: dict[str, Any], budget: int | None
) -> None:
    thinking(fake_engines, "judge", "ann")
    panel = tuple(Seat(name, name, Sampling(**sampling)) for name in ("ann", "bob"))
    await fake_engines.run(analysis="off", panel=panel, judge_sampling=Sampling(**sampling))
    for name in ("judge", "ann"):
        assert fake_engines.servers[name].bodies[-1].get("thinking_token_budget") == budget
        assert fake_engines.servers[name].bodies[-1].get("max_completion_tokens") == sampling.get(
            "max_completion_tokens"
        )
    # It does not think.
    assert "thinking_token_budget" not in fake_engines.servers["bob"].bodies[-1]


async def test_a_server_of_another_api_gets_no_budget(fake_engines: FakeEngines) -> None:
    thinking(fake_engines, "ann", extensions=False)
    panel = (Seat("ann", "ann", Sampling(max_completion_tokens=50)), Seat("bob", "bob"))
    await fake_engines.run(analysis="off", panel=panel)
    assert "thinking_token_budget" not in fake_engines.servers["ann"].bodies[-1]


async def test_an_engine_that_takes_no_budget_is_asked_without_one(fake_engines: FakeEngines) -> None:
    """As vLLM says it of a parser that knows no end of thinking."""
    message = "thinking_token_budget is set but reasoning_config is not configured."

    def refuses(body: Json) -> Script:
        refusal = (400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})
        return Script(refuse=refusal) if "thinking_token_budget" in body else judge_script()(body)

    fake_engines.let("judge", refuses)
    thinking(fake_engines, "judge")
    run = await fake_engines.run(judge_sampling=Sampling(max_completion_tokens=50))
    assert (run.status, run.content) == ("ok", "The final answer")


async def test_an_analysis_has_its_whole_limit_beside_the_thoughts(fake_engines: FakeEngines) -> None:
    thinking(fake_engines, "judge")
    await fake_engines.run(analysis_max_tokens=100)
    compare = next(body for body in fake_engines.servers["judge"].bodies if "response_format" in body)
    assert (compare["max_completion_tokens"], compare["thinking_token_budget"]) == (200, 100)


async def test_thoughts_are_kept_apart_from_answers_analysis_and_synthesis(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("It is 4.",), reasoning=THOUGHTS))
    analysis = Script((json.dumps(ANALYSIS),), reasoning=THOUGHTS)
    fake_engines.let("judge", judge_script(final=Script(("Four",), reasoning=THOUGHTS), analysis=analysis))
    thinking(fake_engines, "judge", *MEMBERS)
    run = await fake_engines.run()
    assert (run.status, run.content, run.answer.reasoning) == ("ok", "Four", THOUGHTS)
    assert run.analysis
    assert run.analysis["consensus"] == ANALYSIS["consensus"]
    assert {(answer.content, answer.reasoning) for answer in run.answers} == {("It is 4.", THOUGHTS)}
    assert not any("I take B" in str(body["messages"]) for body in fake_engines.servers["judge"].bodies)


async def test_a_choice_is_what_stands_in_the_answer_and_not_in_the_thoughts(fake_engines: FakeEngines) -> None:
    def choose(body: Json) -> Script:
        thought = {"token": "B", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -0.1}]}
        said = {"token": "C", "logprob": -0.1, "top_logprobs": [{"token": "C", "logprob": -0.1}]}
        return Script(("C",), reasoning="B? No.", logprobs=(thought, said))

    fake_engines.let("judge", judge_script(choice=choose))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(strategy="select")
    assert (run.status, run.verdict.chosen) == ("ok", run.labels["C"])
    body = fake_engines.servers["judge"].bodies[-1]
    assert "max_completion_tokens" not in body
    assert body["thinking_token_budget"] == 1024


async def test_a_word_in_the_thoughts_ends_no_run_early(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((f"{name} says so",)))
    agree = judge_script(choice=lambda body: Script(("no",), reasoning="yes"))
    fake_engines.let("judge", agree)
    thinking(fake_engines, "judge")
    run = await fake_engines.run(early_exit="judge", analysis="off")
    assert (run.verdict.early_exit, run.content) == ("off", "The final answer")


@pytest.mark.parametrize("analysis", ["before", "off"])
async def test_a_judge_that_only_thinks_gives_no_empty_answer(fake_engines: FakeEngines, analysis: str) -> None:
    fake_engines.let("judge", Script((), reasoning=THOUGHTS, finish_reason="length"))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(analysis=analysis, judge_sampling=Sampling(max_completion_tokens=50))
    assert (run.status, run.failure_reason, run.content) == ("degraded", "empty_answer", "Hello there")
    assert "".join(e.chunk.content for e in fake_engines.events if isinstance(e, FinalDelta)).strip() == "Hello there"


async def test_a_member_that_only_thinks_is_a_failure_that_is_told(fake_engines: FakeEngines) -> None:
    thinking(fake_engines, *MEMBERS)
    fake_engines.let("ann", Script((), reasoning=THOUGHTS, finish_reason="length"))
    run = await fake_engines.run(analysis="off")
    assert [(each.name, each.reason) for each in run.failures] == [("ann", "empty_answer")]
    for name in MEMBERS:
        fake_engines.let(name, Script((), reasoning=THOUGHTS, finish_reason="length"))
    with pytest.raises(PanelFailed):
        await fake_engines.run(analysis="off")


async def test_a_budget_that_limits_a_judge_leaves_room_beside_its_thoughts(fake_engines: FakeEngines) -> None:
    thinking(fake_engines, "judge")
    sampling = Sampling(thinking_token_budget=1000)
    await fake_engines.run(max_total_tokens=1600, judge_sampling=sampling)
    for body in fake_engines.servers["judge"].bodies:
        assert 0 < body["thinking_token_budget"] <= body["max_completion_tokens"] // 2
    await fake_engines.run(max_total_tokens=100_000, judge_sampling=sampling)
    assert {body["thinking_token_budget"] for body in fake_engines.servers["judge"].bodies[-2:]} == {1000}


def only_thinks(script: Callable[[Json], Script]) -> Callable[[Json], Script]:
    """A judge that writes nothing until its thinking is turned off."""

    def reply(body: Json) -> Script:
        is_off = body.get("thinking_token_budget") == 0 or body.get("reasoning_effort") == "none"
        return script(body) if is_off else Script((), reasoning="Hm. ", finish_reason="length")

    return reply


def asked(fake_engines: FakeEngines, *places: str) -> list[list[Any]]:
    """What each call of the judge had in these fields."""
    return [[body.get(place) for place in places] for body in fake_engines.servers["judge"].bodies]


ROLES = {"agreement", "analysis", "choice", "final"}


@pytest.mark.parametrize(
    ("way", "roles"),
    [
        ({}, ["analysis", "analysis", "final", "final"]),
        ({"strategy": "select", "select": Selection(by=("judge",))}, ["choice", "choice"]),
        ({"strategy": "vote"}, ["choice", "choice"]),
        ({"strategy": "vote", "agreement": Agreement(by="judge")}, ["agreement", "agreement"]),
        ({"early_exit": "judge", "analysis": "off"}, ["agreement", "agreement", "final", "final"]),
    ],
)
async def test_a_judge_that_only_thinks_is_asked_once_more_without(
    fake_engines: FakeEngines, way: dict[str, Any], roles: list[str]
) -> None:
    for name, text in zip(MEMBERS, ("a red sky", "a blue sky", "the sky is blue"), strict=True):
        fake_engines.let(name, Script((text,)))
    groups = Script((json.dumps({"A": "A", "B": "A", "C": "A"}),))
    choice = choice_script(red=0.9, blue=0.05)

    def script(body: Json) -> Script:
        if '"same"' in json.dumps(body.get("response_format", "")):
            return groups
        return Script(("no",)) if "yes" in str(body.get("structured_outputs")) else judge_script(choice=choice)(body)

    fake_engines.let("judge", only_thinks(script))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(**way)
    assert (run.status, run.failure_reason) == ("ok", None)
    assert [call.role for call in run.calls if call.role in ROLES] == roles
    off = asked(fake_engines, "thinking_token_budget", "chat_template_kwargs")
    assert [each == [0, {"enable_thinking": False}] for each in off] == [False, True] * (len(roles) // 2)
    assert run.content == ("a red sky" if "strategy" in way else "The final answer")


async def test_the_thoughts_of_both_calls_are_sent_before_the_answer(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", only_thinks(lambda body: Script(("Four",), reasoning="Well.")))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(analysis="off")
    chunks = [event.chunk for event in fake_engines.events if isinstance(event, FinalDelta)]
    assert (run.status, run.content, run.answer.reasoning) == ("ok", "Four", "Hm. Well.")
    assert "".join(chunk.content for chunk in chunks) == "Four"
    assert "".join(chunk.reasoning for chunk in chunks) == "Hm. Well."


def token(text: str) -> Json:
    return {"token": text, "logprob": -0.1, "top_logprobs": [{"token": text, "logprob": -0.1}]}


async def test_usage_counts_the_thoughts_that_were_sent(fake_engines: FakeEngines) -> None:
    def script(body: Json) -> Script:
        is_off = body.get("thinking_token_budget") == 0
        return Script(("Four",), reasoning="Well.") if is_off else Script((" ", " "), reasoning="Hm. ")

    fake_engines.let("judge", script)
    thinking(fake_engines, "judge")
    run = await fake_engines.run(analysis="off")
    usage = trace.run_usage(run)
    assert run.answer.reasoning == "Hm. Well."
    assert (usage["completion_tokens"], usage["total_tokens"]) == (3, run.prompt_tokens + 3)
    # The call that wrote the answer is itself, for the trace of its spans.
    assert run.answer.call == run.calls[-1]


async def test_of_calls_at_once_each_answer_has_its_own_thoughts(fake_engines: FakeEngines) -> None:
    """As in `debias`, whose orders have the same letters for other answers."""
    server = fake_engines.servers["judge"]

    def script(body: Json) -> Script:
        letter = last_message(body)
        if letter == "B":
            server.released.set()
        return Script((" ",), reasoning=f"{letter}? ", logprobs=(token(f"{letter}?"),), ending="held")

    def choose(body: Json) -> Script:
        return Script((last_message(body),), reasoning="Yes.", logprobs=(token(last_message(body)),))

    fake_engines.let("judge", lambda body: choose(body) if body.get("thinking_token_budget") == 0 else script(body))
    thinking(fake_engines, "judge")
    asking = Asking(fake_engines.engines["judge"], "judge", "nonce")
    prompts = [Prompt([{"role": "user", "content": each}], logprobs=1) for each in "AB"]
    answers = await asyncio.gather(*(asking.ask("choice", prompt, Sampling()) for prompt in prompts))
    assert [(each.reasoning, each.content) for each in answers] == [("A? Yes.", "A"), ("B? Yes.", "B")]
    tokens = [[each["token"] for each in answer.logprobs] for answer in answers]
    assert tokens == [["A?", "A"], ["B?", "B"]]


async def test_an_answer_beside_its_analysis_has_the_thoughts_that_were_sent(fake_engines: FakeEngines) -> None:
    server = fake_engines.servers["judge"]

    def script(body: Json) -> Script:
        """The answer, begun first, ends once the analysis has begun."""
        is_off = body.get("thinking_token_budget") == 0
        if "response_format" in body:
            server.released.set()
            return Script((json.dumps(ANALYSIS),)) if is_off else Script((), reasoning="A is wrong. ")
        return Script(("Four",), reasoning="Well.") if is_off else Script((), reasoning="Hm. ", ending="held")

    fake_engines.let("judge", script)
    thinking(fake_engines, "judge")
    run = await fake_engines.run(analysis="alongside")
    assert (run.status, run.content, run.answer.reasoning) == ("ok", "Four", "Hm. Well.")
    chunks = [event.chunk for event in fake_engines.events if isinstance(event, FinalDelta)]
    assert "".join(chunk.reasoning for chunk in chunks) == run.answer.reasoning


async def test_a_judge_that_thinks_all_the_same_leaves_a_run_without_an_analysis_that_says_so(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.let("judge", judge_script(analysis=Script((), reasoning=THOUGHTS)))
    thinking(fake_engines, "judge")
    run = await fake_engines.run()
    assert (run.status, run.failure_reason, run.content) == ("degraded", "empty_answer", "The final answer")
    assert [call.role for call in run.calls if call.role == "analysis"] == ["analysis"] * 2
    assert run.analysis is None


async def test_a_server_of_another_api_is_asked_for_no_effort_and_its_refusal_is_not_the_requests_fault(
    fake_engines: FakeEngines,
) -> None:
    thinking(fake_engines, "judge", extensions=False)
    fake_engines.let("judge", only_thinks(judge_script()))
    assert (await fake_engines.run(analysis="off")).content == "The final answer"
    assert asked(fake_engines, "reasoning_effort") == [[None], ["none"]]

    def refuses(body: Json) -> Script:
        error = {"error": {"message": "reasoning_effort 'none' is not supported", "code": 400}}
        return Script(refuse=(400, error)) if "reasoning_effort" in body else Script((), reasoning=THOUGHTS)

    fake_engines.let("judge", refuses)
    for name in MEMBERS:
        fake_engines.let(name, Script(('{"a": 1}',)))
    form = OutputFormat("response_format", {"type": "json_object"})
    run = await fake_engines.put(Prompt([{"role": "user", "content": "Hi"}], output_format=form), analysis="off")
    assert (run.status, run.failure_reason, run.content) == ("degraded", "empty_answer", '{"a": 1}')


async def test_with_a_budget_nothing_before_the_answer_is_asked_for_twice(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((f"{name} says so",)))
    fake_engines.let("judge", only_thinks(judge_script()))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(max_total_tokens=100_000, early_exit="judge")
    assert [call.role for call in run.calls if call.role in ROLES] == ["agreement", "analysis", "final", "final"]
    assert (run.failure_reason, run.content) == ("empty_answer", "The final answer")


async def test_with_a_budget_a_judge_is_asked_twice_who_says_the_same(fake_engines: FakeEngines) -> None:
    """Without that, words would count, and the run would be degraded."""
    for name in MEMBERS:
        fake_engines.let(name, Script((f"{name} says so",)))
    groups = Script((json.dumps({"A": "A", "B": "A", "C": "A"}),))
    fake_engines.let("judge", only_thinks(lambda body: groups))
    thinking(fake_engines, "judge")
    run = await fake_engines.run(strategy="vote", agreement=Agreement(by="judge"), max_total_tokens=100_000)
    assert (run.status, [call.role for call in run.calls if call.role in ROLES]) == ("ok", ["agreement"] * 2)


async def test_a_model_that_is_not_known_to_think_is_asked_once(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", only_thinks(judge_script()))
    run = await fake_engines.run(analysis="off")
    assert len(fake_engines.servers["judge"].bodies) == 1
    assert (run.status, run.content) == ("degraded", "Hello there")
