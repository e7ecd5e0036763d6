"""Strategies and run options over scripted engines."""

import json
from typing import Any

import pytest

from cappella.config.options import Gate, Seat
from cappella.engines.vllm.protocol import SPACING
from cappella.ensemble.errors import InsufficientQuorum
from cappella.ensemble.events import AnswerDelta, FinalDelta, Gated, Reviewed, RoundStarted
from cappella.errors import ContextLengthExceeded, JudgeFailed, RequestError
from cappella.types import Capabilities, OutputFormat, Prompt, Sampling, ToolCall
from support.fake_engines import MEMBERS, FakeEngines, choice_script, judge_script, last_message
from support.scripted_engine import Json, Script, too_long

HI = [{"role": "user", "content": "Say hello."}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
JSON_FORMAT = OutputFormat("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})


def let_members_answer(fake_engines: FakeEngines, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        fake_engines.let(name, Script((text,)))


def schema_of(body: Json) -> Any:
    return body["response_format"]["json_schema"]["schema"]


def finals(fake_engines: FakeEngines) -> str:
    return "".join(event.chunk.content for event in fake_engines.events if isinstance(event, FinalDelta))


async def test_select_returns_the_chosen_answer_verbatim_with_the_judges_probabilities(
    fake_engines: FakeEngines,
) -> None:
    let_members_answer(fake_engines, "red", "  blue, surely\n", "green")
    fake_engines.let("judge", judge_script(choice=choice_script(blue=0.7, red=0.2, green=0.1)))
    run = await fake_engines.run(strategy="select")
    assert (run.content, finals(fake_engines), run.verdict.chosen) == ("  blue, surely\n", "  blue, surely\n", "bob")
    assert run.verdict.probabilities == pytest.approx({"ann": 0.2, "bob": 0.7, "cat": 0.1})
    (body,) = fake_engines.servers["judge"].bodies
    assert sorted(body["structured_outputs"]["choice"]) == ["A", "B", "C"]
    assert [call.role for call in run.calls] == ["panel"] * 3 + ["choice"]


async def test_a_judge_that_does_not_choose_degrades_the_run(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "it is red", "it is red now", "nothing")
    fake_engines.let("judge", Script(("Z",), logprobs=({"token": "Z", "logprob": -0.1, "top_logprobs": []},)))
    run = await fake_engines.run(strategy="select")
    assert (run.status, run.failure_reason) == ("degraded", "judge_schema_mismatch")
    assert run.content.startswith("it is red")


async def test_vote_returns_the_most_common_answer_whatever_its_spelling(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "The total is 1,200.", "the total is 1200", "900")
    run = await fake_engines.run(strategy="vote")
    assert (run.content, run.verdict.chosen, run.status) == ("The total is 1,200.", "ann", "ok")
    assert run.verdict.votes == {"ann": ["ann", "bob"], "cat": ["cat"]}
    assert not fake_engines.servers["judge"].bodies


@pytest.mark.parametrize(
    ("most", "another"),
    [("It is 10.0.0.1", "It is 10.0.0.10"), ("3.10", "3.1"), ("f(x1)", "f(x+1)"), ('{"v": "3.10"}', '{"v": "3.1"}')],
)
async def test_different_addresses_versions_and_programs_are_different_votes(
    fake_engines: FakeEngines, most: str, another: str
) -> None:
    let_members_answer(fake_engines, another, most, most)
    run = await fake_engines.run(strategy="vote")
    assert (run.content, run.verdict.votes) == (most, {"bob": ["bob", "cat"], "ann": ["ann"]})
    assert (await fake_engines.run(early_exit="equal")).content == "The final answer"


async def test_in_a_tie_the_judge_sees_only_the_leaders(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    fake_engines.let("judge", judge_script(choice=choice_script(green=0.9, red=0.1)))
    twice = [Seat(f"{name}{number}", name) for name in ("ann", "cat") for number in range(2)]
    run = await fake_engines.run(strategy="vote", panel=(*twice, Seat("bob", "bob")))
    assert run.content == "green"
    assert fake_engines.servers["judge"].bodies[0]["structured_outputs"]["choice"] == ["A", "B"]
    assert "blue" not in fake_engines.judge_prompt()


async def test_json_answers_are_voted_on_field_by_field(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, '{"n": 1, "who": "Ann"}', '{"n": 1.0, "who": "bob"}', '{"n": 3, "who": "Bob"}')
    run = await fake_engines.run(strategy="vote")
    assert json.loads(run.content) == {"n": 1, "who": "bob"}
    assert not fake_engines.servers["judge"].bodies


async def test_a_field_that_ties_takes_the_value_of_the_judges_choice(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, '{"n": 1, "m": 5}', '{"n": 2, "m": 5}', '{"n": 3, "m": 6}')
    fake_engines.let("judge", judge_script(choice=choice_script(**{'"n": 3': 1.0})))
    run = await fake_engines.run(strategy="vote")
    assert json.loads(run.content) == {"n": 3, "m": 5}


async def test_a_merge_that_violates_the_format_is_replaced_by_whole_answers(fake_engines: FakeEngines) -> None:
    kinds = [{"n": {"const": 1}, "m": {"const": 1}}, {"n": {"const": 2}, "m": {"enum": [7, 8]}}]
    schema = {"anyOf": [{"type": "object", "properties": kind, "required": ["n", "m"]} for kind in kinds]}
    output_format = OutputFormat(
        "response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )
    let_members_answer(fake_engines, '{"n": 1, "m": 1}', '{"n": 2, "m": 7}', '{"n": 2, "m": 8}')
    fake_engines.let("judge", judge_script(choice=choice_script(**{'"m": 1': 1.0})))
    run = await fake_engines.put(Prompt(HI, output_format=output_format), strategy="vote")
    assert json.loads(run.content) in ({"n": 1, "m": 1}, {"n": 2, "m": 7}, {"n": 2, "m": 8})


async def test_samples_are_one_request_and_as_many_answers(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(samples=("one", "two", "three")))
    run = await fake_engines.run(panel=(Seat("ann", "ann", Sampling(temperature=0.9), samples=3),), analysis="off")
    (body,) = fake_engines.servers["ann"].bodies
    assert body["n"] == 3
    assert {answer.name: answer.content for answer in run.answers} == {"ann~1": "one", "ann~2": "two", "ann~3": "three"}
    assert [call.role for call in run.calls] == ["panel", "final"]
    assert {event.name for event in fake_engines.events if isinstance(event, AnswerDelta)} == {
        "ann~1",
        "ann~2",
        "ann~3",
    }


async def test_samples_finished_before_the_timeout_are_answers(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(samples=("one", "two"), ending="hang"))
    run = await fake_engines.run(panel=(Seat("ann", "ann", samples=2),), quorum=1, analysis="off", round_timeout_s=0.4)
    assert [answer.content for answer in run.answers] == ["two"]
    assert [(failure.name, failure.reason, failure.partial) for failure in run.failures] == [
        ("ann~1", "deadline", "one")
    ]


async def test_a_seats_system_text_stands_before_the_callers(fake_engines: FakeEngines) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, *HI]
    panel = (Seat("ann", "ann", system="Doubt."), Seat("bob", "bob"))
    await fake_engines.put(Prompt(conversation), panel=panel)
    assert fake_engines.servers["ann"].bodies[0]["messages"][0] == {"role": "system", "content": "Doubt.\n\nBe brief."}
    assert fake_engines.servers["bob"].bodies[0]["messages"] == conversation
    await fake_engines.put(Prompt(HI), panel=panel)
    assert fake_engines.servers["ann"].bodies[1]["messages"] == [{"role": "system", "content": "Doubt."}, *HI]


async def test_in_a_second_layer_the_members_read_the_first_ones_answers(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, lambda body: Script(("second" if "[answer A" in last_message(body) else "first",)))
    run = await fake_engines.run(layers=2, analysis="off")
    assert [answer.content for answer in run.answers] == ["second"] * 3
    assert [[answer.content for answer in panel.answers] for panel in run.rounds] == [["first"] * 3, ["second"] * 3]
    assert last_message(fake_engines.servers["ann"].bodies[1]).count("first") == 3
    assert [event.number for event in fake_engines.events if isinstance(event, RoundStarted)] == [2]
    assert [call.role for call in run.calls] == ["panel"] * 6 + ["final"]


async def test_a_later_layer_below_the_quorum_leaves_the_answers_of_the_one_before(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(
            name, lambda body: Script(ending="break") if "[answer A" in last_message(body) else Script(("first",))
        )
    run = await fake_engines.run(layers=2, analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "layer_below_quorum")
    assert [answer.content for answer in run.answers] == ["first"] * 3
    assert {failure.name for failure in run.failures} == set(MEMBERS)


def ranks(*order: str) -> Any:
    """A member's script: an answer, and later a ranking by what the answers say."""

    def script(body: Json) -> Script:
        if "Now rank" not in last_message(body):
            return Script((order[0],))
        letters = {
            last_message(body).split(f"[answer {letter} ")[1].split("\n")[1]: letter
            for letter in body["response_format"]["json_schema"]["schema"]["items"]["enum"]
        }
        return Script((json.dumps([letters[text] for text in order[1:]]),))

    return script


async def test_in_a_review_a_member_cannot_rank_its_own_answer(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", ranks("red", "red", "green", "blue"))
    fake_engines.let("bob", ranks("blue", "blue", "green", "red"))
    fake_engines.let("cat", ranks("green", "green", "red", "blue"))
    run = await fake_engines.run(review=True, analysis="off", seed=2)
    assert run.ranking == ["cat", "ann", "bob"]
    letters = {name: letter for letter, name in run.labels.items()}
    assert f"best first: {letters['cat']}, {letters['ann']}, {letters['bob']}" in fake_engines.judge_prompt()
    assert [event.ranking for event in fake_engines.events if isinstance(event, Reviewed)] == [["cat", "ann", "bob"]]
    assert [call.role for call in run.calls].count("review") == 3


async def test_a_review_without_rankings_does_not_degrade_the_run(fake_engines: FakeEngines) -> None:
    run = await fake_engines.run(review=True, analysis="off")
    assert (run.ranking, run.status, run.content) == (None, "ok", "The final answer")


async def test_a_unanimous_panel_needs_no_judge(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "Red.", "red", " RED ")
    run = await fake_engines.run(early_exit="equal")
    assert (run.content, run.verdict.early_exit, run.status) == ("Red.", "equal", "ok")
    assert not fake_engines.servers["judge"].bodies
    let_members_answer(fake_engines, "Red.", "red", "blue")
    run = await fake_engines.run(early_exit="equal")
    assert (run.content, run.verdict.early_exit) == ("The final answer", "off")


@pytest.mark.parametrize(("word", "content"), [("yes", "It is red"), ("no", "The final answer")])
async def test_the_judge_may_say_that_all_agree(fake_engines: FakeEngines, word: str, content: str) -> None:
    let_members_answer(fake_engines, "It is red", "Red it is", "The colour red")
    fake_engines.let("judge", judge_script(choice=lambda body: Script((word,))))
    run = await fake_engines.run(early_exit="judge", analysis="off")
    assert run.content == content
    assert fake_engines.servers["judge"].bodies[0]["structured_outputs"] == {"choice": ["yes", "no"]}


@pytest.mark.parametrize(
    "check", [Script(ending="break"), Script(ending="hang"), Script(()), Script(refuse=(400, {"error": {}}))]
)
async def test_a_failed_agreement_check_costs_nothing(fake_engines: FakeEngines, check: Script) -> None:
    let_members_answer(fake_engines, "It is red", "Red it is", "The colour red")
    fake_engines.let("judge", judge_script(choice=lambda body: check))
    run = await fake_engines.run(early_exit="judge", analysis="off", deadline_s=4.0)
    assert (run.content, run.status, run.verdict.early_exit) == ("The final answer", "ok", "off")
    assert [call.role for call in run.calls] == ["panel"] * 3 + ["agreement", "final"]


async def test_a_gate_that_hangs_leaves_time_for_the_panel(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(choice=lambda body: Script(ending="hang")))
    run = await fake_engines.run(
        "Say hello to all of them.", gate=Gate("judge", "cat", 1), analysis="off", deadline_s=4.0
    )
    assert (run.content, run.status) == ("The final answer", "ok")
    assert run.gate
    assert run.gate.reason == "the judge did not decide: timeout"


async def test_the_rules_gate_sends_a_short_request_to_one_model(fake_engines: FakeEngines) -> None:
    gate = Gate("rules", "cat", 3)
    run = await fake_engines.run("Say hello.", gate=gate)
    assert (run.status, run.content, finals(fake_engines)) == ("bypassed", "Hello there", "Hello there")
    assert run.gate
    assert run.gate.reason == "2 words; cat alone answers up to 3"
    assert [call.role for call in run.calls] == ["single"]
    assert not fake_engines.servers["ann"].bodies
    longer = await fake_engines.run("Say hello to all of them.", gate=gate)
    assert (longer.status, longer.gate and longer.gate.bypass) == ("ok", False)
    assert [event.decision.bypass for event in fake_engines.events if isinstance(event, Gated)] == [True, False]


@pytest.mark.parametrize(("word", "status"), [("no", "bypassed"), ("yes", "ok")])
async def test_the_judge_may_be_the_gate(fake_engines: FakeEngines, word: str, status: str) -> None:
    fake_engines.let("judge", judge_script(choice=lambda body: Script((word,))))
    run = await fake_engines.run("Say hello to all of them.", gate=Gate("judge", "cat", 1))
    assert run.status == status
    assert run.calls[0].role == "gate"


async def test_a_gate_whose_model_fails_falls_back_to_the_panel(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script((), ending="break"))
    run = await fake_engines.run(gate=Gate("rules", "cat", 9), analysis="off")
    assert (run.content, run.gate and run.gate.bypass) == ("The final answer", False)
    fake_engines.engines["cat"].status.state = "restarting"
    run = await fake_engines.run(gate=Gate("rules", "cat", 9), analysis="off")
    assert run.gate
    assert run.gate.reason == "cat is not ready"


async def test_the_tokens_of_a_gates_model_that_failed_are_counted(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", lambda body: Script(()) if len(fake_engines.servers["cat"].bodies) == 1 else Script())
    run = await fake_engines.run(gate=Gate("rules", "cat", 9), analysis="off")
    assert [call.role for call in run.calls] == ["single", *["panel"] * 3, "final"]
    assert run.calls[0].usage.prompt_tokens == 10


async def test_a_budget_holds_for_the_whole_run(fake_engines: FakeEngines) -> None:
    run = await fake_engines.run(max_total_tokens=400, analysis="off")
    allowed = [fake_engines.servers[name].bodies[0]["max_completion_tokens"] for name in (*MEMBERS, "judge")]
    assert allowed[:3] == [66] * 3
    spent_by_panel = sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in run.calls[:3])
    assert allowed[3] == 400 - spent_by_panel - 10
    assert sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in run.calls) <= 400


async def test_calls_at_once_share_what_is_left_of_a_budget(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red", "blue", "green")
    fake_engines.let("judge", judge_script(choice=choice_script(blue=0.9)))
    run = await fake_engines.run(strategy="select", debias=True, max_total_tokens=400)
    assert (run.content, run.status) == ("blue", "ok")
    run = await fake_engines.run(analysis="alongside", review=True, max_total_tokens=600)
    assert (run.content, run.status) == ("The final answer", "ok")
    analysis, final = fake_engines.servers["judge"].bodies[-2:]
    assert (analysis["max_completion_tokens"], final["max_completion_tokens"]) == (150, 150)


async def test_a_budget_that_is_too_small_is_the_requests_fault(fake_engines: FakeEngines) -> None:
    with pytest.raises(RequestError, match="max_total_tokens") as raised:
        await fake_engines.run(max_total_tokens=30)
    assert (raised.value.param, raised.value.code) == ("fusion.max_total_tokens", "budget_too_small")
    assert not fake_engines.servers["ann"].bodies


async def test_if_the_panel_uses_up_the_budget_its_best_answer_is_returned(fake_engines: FakeEngines) -> None:
    fake_engines.servers["judge"].tokens = 1000
    run = await fake_engines.run(max_total_tokens=200, analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "budget")
    assert not fake_engines.servers["judge"].bodies


async def test_a_refused_call_releases_its_share_of_the_budget(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", too_long())
    run = await fake_engines.run(max_total_tokens=400, analysis="off")
    spent = sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in run.calls if call.role == "panel")
    assert fake_engines.servers["judge"].bodies[0]["max_completion_tokens"] == 400 - spent - 10


async def test_members_get_the_output_format_only_if_asked(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(('{"n": 1}',))))
    await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), analysis="off")
    assert schema_of(fake_engines.servers["judge"].bodies[0]) == {**SCHEMA, **SPACING}
    assert "response_format" not in fake_engines.servers["ann"].bodies[0]
    let_members_answer(fake_engines, '{"n": 2}', '{"n": 3}', '{"n": "x"}')
    run = await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), analysis="off", formatted_panel=True)
    assert schema_of(fake_engines.servers["ann"].bodies[1]) == {**SCHEMA, **SPACING}
    assert [(failure.name, failure.reason) for failure in run.failures] == [("cat", "invalid_format")]


@pytest.mark.parametrize("strategy", ["select", "vote"])
async def test_select_and_vote_return_only_valid_answers(fake_engines: FakeEngines, strategy: str) -> None:
    let_members_answer(fake_engines, '{"n": 2}', "free text", '{"m": 2}')
    run = await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), strategy=strategy, quorum=1)
    assert (run.content, run.status) == ('{"n": 2}', "single")
    with pytest.raises(InsufficientQuorum, match="not JSON"):
        await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), strategy=strategy, quorum=2)


async def test_a_failed_judge_is_an_error_if_no_answer_has_the_format(fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", Script((), ending="break"))
    with pytest.raises(JudgeFailed, match="engine_broke"):
        await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), analysis="off")
    fake_engines.let("bob", Script(('{"n": 7}',)))
    run = await fake_engines.put(Prompt(HI, output_format=JSON_FORMAT), analysis="off")
    assert (run.content, run.status) == ('{"n": 7}', "degraded")


@pytest.mark.parametrize(
    "half", [Script(('{"n":',), ending="break"), Script((), calls=(("look_up", "{}"),), ending="break")]
)
async def test_no_answer_follows_a_partial_tool_call_or_format(fake_engines: FakeEngines, half: Script) -> None:
    fake_engines.let("bob", Script(('{"n": 7}',)))
    fake_engines.let("judge", half)
    prompt = Prompt(HI, tools=TOOLS) if half.calls else Prompt(HI, output_format=JSON_FORMAT)
    with pytest.raises(JudgeFailed, match="after part of"):
        await fake_engines.put(prompt, analysis="off")


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALL = Script((), calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")


async def test_members_propose_tool_calls_and_the_judge_alone_makes_them(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, CALL)
    fake_engines.let("judge", judge_script(CALL))
    prompt = Prompt(HI, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False)
    run = await fake_engines.put(prompt, analysis="before")
    assert run.answer.tool_calls == [ToolCall(0, "call_0", "look_up", '{"name": "Ann"}')]
    assert run.answer.finish_reason == "tool_calls"
    compare, write = fake_engines.servers["judge"].bodies
    assert (compare["tools"], compare["tool_choice"]) == (TOOLS, "none")
    assert (write["tools"], write["tool_choice"], write["parallel_tool_calls"]) == (TOOLS, "auto", False)
    assert last_message(write).count('[call look_up {"name": "Ann"}]') == 3
    assert "yours alone to call" in last_message(write)
    assert fake_engines.servers["ann"].bodies[0]["tools"] == TOOLS
    pieces = [call for e in fake_engines.events if isinstance(e, FinalDelta) for call in e.chunk.tool_calls]
    assert [piece.arguments for piece in pieces] == ["", '{"name"', ': "Ann"}']


async def test_equal_tool_calls_are_equal_answers(fake_engines: FakeEngines) -> None:
    for name, spelling in zip(MEMBERS, ('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1, "b": 3}'), strict=True):
        fake_engines.let(name, Script((), calls=(("look_up", spelling),), finish_reason="tool_calls"))
    run = await fake_engines.put(Prompt(HI, tools=TOOLS), strategy="vote")
    assert run.verdict.votes == {"ann": ["ann", "bob"], "cat": ["cat"]}
    assert run.answer.tool_calls[0].arguments == '{"a": 1, "b": 2}'


async def test_reasoning_is_in_the_trace_and_shown_to_the_judge_only_if_asked(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("\n\nred",), reasoning="I think so."))
    run = await fake_engines.run(analysis="off")
    assert (run.answers[0].reasoning, run.answers[0].content) == ("I think so.", "red")
    assert "I think so." not in fake_engines.judge_prompt()
    await fake_engines.run(analysis="off", show_reasoning=True)
    assert "[reasoning] I think so.\nred" in fake_engines.judge_prompt()


async def test_an_effort_is_passed_to_the_models_that_support_it(fake_engines: FakeEngines) -> None:
    fake_engines.engines["ann"].capabilities = Capabilities(reasoning=True)
    await fake_engines.put(Prompt(HI, reasoning_effort="low"), analysis="off")
    assert fake_engines.servers["ann"].bodies[0]["reasoning_effort"] == "low"
    assert "reasoning_effort" not in fake_engines.servers["bob"].bodies[0]
    assert "reasoning_effort" not in fake_engines.servers["judge"].bodies[0]


IMAGE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
    }
]


async def test_images_go_to_members_that_accept_them_and_the_judge_gets_a_placeholder(
    fake_engines: FakeEngines,
) -> None:
    for name in ("ann", "bob"):
        fake_engines.engines[name].capabilities = Capabilities(images=True)
    run = await fake_engines.put(Prompt(IMAGE), analysis="off")
    assert fake_engines.servers["ann"].bodies[0]["messages"] == IMAGE
    assert [(failure.name, failure.reason) for failure in run.failures] == [("cat", "images_not_supported")]
    assert "an image that you cannot see" in fake_engines.judge_prompt()
    assert "base64" not in fake_engines.judge_prompt()


async def test_logprobs_are_those_of_the_tokens_that_are_returned(fake_engines: FakeEngines) -> None:
    token: Json = {"token": "x", "logprob": -0.5, "top_logprobs": []}
    fake_engines.let("judge", judge_script(Script(("x",), logprobs=(token,))))
    run = await fake_engines.put(Prompt(HI, logprobs=2), analysis="off")
    assert run.answer.logprobs == [token]
    assert fake_engines.servers["judge"].bodies[0]["top_logprobs"] == 2
    assert "logprobs" not in fake_engines.servers["ann"].bodies[0]
    fake_engines.let("ann", Script(("red",), logprobs=(token,)))
    fake_engines.let("bob", Script(("red",), logprobs=(token,)))
    run = await fake_engines.put(Prompt(HI, logprobs=2), strategy="vote")
    assert (run.content, run.answer.logprobs) == ("red", [token])


async def test_the_callers_stop_texts_end_an_answer_that_is_returned_verbatim(fake_engines: FakeEngines) -> None:
    let_members_answer(fake_engines, "red STOP blue", "red STOP blue", "green")
    run = await fake_engines.run(strategy="vote", judge_sampling=Sampling(stop=("STOP",)))
    assert (run.content, run.answer.stop_sequence, finals(fake_engines)) == ("red ", "STOP", "red ")


async def test_a_layer_too_long_for_every_member_still_ends_with_the_first_answers(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, lambda body: too_long() if "[answer A" in last_message(body) else Script(("first",)))
    run = await fake_engines.run(layers=2, analysis="off")
    assert (run.status, run.failure_reason) == ("degraded", "layer_below_quorum")
    for name in MEMBERS:
        fake_engines.let(name, too_long())
    with pytest.raises(ContextLengthExceeded):
        await fake_engines.run(layers=2)
