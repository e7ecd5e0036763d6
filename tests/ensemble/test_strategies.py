"""Every way to combine, over scripted engines."""

import json
from typing import Any

import pytest

from cappella.engines.wire import SPACING
from cappella.errors import ContextLengthExceeded, InsufficientQuorum, JudgeFailed, RequestError
from cappella.events import AnswerDelta, FinalDelta, Gated, Reviewed, RoundStarted
from cappella.options import Gate, Seat
from cappella.types import Form, Prompt, Sampling, ToolCall, Traits
from choir import MEMBERS, Choir, chooses, judging, said
from scripted_engine import Json, Script

HI = [{"role": "user", "content": "Say hello."}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AS_JSON = Form("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})


def say(choir: Choir, *texts: str) -> None:
    for name, text in zip(MEMBERS, texts, strict=True):
        choir.let(name, Script((text,)))


def schema_of(body: Json) -> Any:
    return body["response_format"]["json_schema"]["schema"]


def finals(choir: Choir) -> str:
    return "".join(event.chunk.content for event in choir.events if isinstance(event, FinalDelta))


async def test_select_returns_the_chosen_answer_verbatim_with_the_judges_probabilities(choir: Choir) -> None:
    say(choir, "red", "  blue, surely\n", "green")
    choir.let("judge", judging(choice=chooses(blue=0.7, red=0.2, green=0.1)))
    run = await choir.run(strategy="select")
    assert (run.content, finals(choir), run.verdict.chosen) == ("  blue, surely\n", "  blue, surely\n", "bob")
    assert run.verdict.probabilities == pytest.approx({"ann": 0.2, "bob": 0.7, "cat": 0.1})
    (body,) = choir.servers["judge"].bodies
    assert sorted(body["structured_outputs"]["choice"]) == ["A", "B", "C"]
    assert [call.role for call in run.calls] == ["panel"] * 3 + ["choice"]


async def test_debias_asks_in_both_orders_and_takes_the_mean(choir: Choir) -> None:
    say(choir, "red", "blue", "green")

    def first_letter_likes_itself(body: Json) -> Script:
        first = said(body).split("[answer A ")[1].split("\n")[1]
        return chooses(**{"green": 0.4, first: 0.6} if first != "green" else {"green": 1.0})(body)

    choir.let("judge", judging(choice=first_letter_likes_itself))
    run = await choir.run(strategy="select", debias=True, seed=1)
    shown = [said(body).split("[answer A ")[1].split("\n")[1] for body in choir.servers["judge"].bodies]
    assert len(set(shown)) == 2
    assert run.verdict.probabilities
    assert sum(run.verdict.probabilities.values()) == pytest.approx(1)
    assert run.content == "green"


async def test_a_judge_that_does_not_choose_costs_the_status(choir: Choir) -> None:
    say(choir, "it is red", "it is red now", "nothing")
    choir.let("judge", Script(("Z",), logprobs=({"token": "Z", "logprob": -0.1, "top_logprobs": []},)))
    run = await choir.run(strategy="select")
    assert (run.status, run.failure_reason) == ("degraded", "judge_schema_mismatch")
    assert run.content.startswith("it is red")


async def test_vote_takes_what_most_say_whatever_its_spelling(choir: Choir) -> None:
    say(choir, "The total is 1,200.", "the total is 1200", "900")
    run = await choir.run(strategy="vote")
    assert (run.content, run.verdict.chosen, run.status) == ("The total is 1,200.", "ann", "ok")
    assert run.verdict.votes == {"ann": ["ann", "bob"], "cat": ["cat"]}
    assert not choir.servers["judge"].bodies


async def test_a_tie_goes_to_the_judge_who_sees_the_leaders_alone(choir: Choir) -> None:
    say(choir, "red", "blue", "green")
    choir.let("judge", judging(choice=chooses(green=0.9, red=0.1)))
    twice = [Seat(f"{name}{number}", name) for name in ("ann", "cat") for number in range(2)]
    run = await choir.run(strategy="vote", panel=(*twice, Seat("bob", "bob")))
    assert run.content == "green"
    assert choir.servers["judge"].bodies[0]["structured_outputs"]["choice"] == ["A", "B"]
    assert "blue" not in choir.judge_prompt()


async def test_json_answers_are_voted_on_field_by_field(choir: Choir) -> None:
    say(choir, '{"n": 1, "who": "Ann"}', '{"n": 1.0, "who": "bob"}', '{"n": 3, "who": "Bob"}')
    run = await choir.run(strategy="vote")
    assert json.loads(run.content) == {"n": 1, "who": "bob"}
    assert not choir.servers["judge"].bodies


async def test_a_field_that_ties_takes_the_value_of_the_judges_choice(choir: Choir) -> None:
    say(choir, '{"n": 1, "m": 5}', '{"n": 2, "m": 5}', '{"n": 3, "m": 6}')
    choir.let("judge", judging(choice=chooses(**{'"n": 3': 1.0})))
    run = await choir.run(strategy="vote")
    assert json.loads(run.content) == {"n": 3, "m": 5}


async def test_a_merge_that_breaks_the_form_gives_way_to_whole_answers(choir: Choir) -> None:
    schema = {"oneOf": [{"properties": {"n": {"const": 1}, "m": {"const": 1}}}, {"properties": {"n": {"const": 2}}}]}
    form = Form("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    say(choir, '{"n": 1, "m": 1}', '{"n": 2, "m": 7}', '{"n": 2, "m": 8}')
    choir.let("judge", judging(choice=chooses(**{'"m": 1': 1.0})))
    run = await choir.put(Prompt(HI, form=form), strategy="vote")
    assert json.loads(run.content) in ({"n": 1, "m": 1}, {"n": 2, "m": 7}, {"n": 2, "m": 1})
    assert json.loads(run.content)["n"] in (1, 2)


async def test_samples_are_one_request_and_as_many_answers(choir: Choir) -> None:
    choir.let("ann", Script(samples=("one", "two", "three")))
    run = await choir.run(panel=(Seat("ann", "ann", Sampling(temperature=0.9), samples=3),), analysis="off")
    (body,) = choir.servers["ann"].bodies
    assert body["n"] == 3
    assert {answer.name: answer.content for answer in run.answers} == {"ann~1": "one", "ann~2": "two", "ann~3": "three"}
    assert [call.role for call in run.calls] == ["panel", "final"]
    assert {event.name for event in choir.events if isinstance(event, AnswerDelta)} == {"ann~1", "ann~2", "ann~3"}


async def test_samples_that_had_ended_when_the_round_was_cut_are_answers(choir: Choir) -> None:
    choir.let("ann", Script(samples=("one", "two"), ending="hang"))
    run = await choir.run(panel=(Seat("ann", "ann", samples=2),), quorum=1, analysis="off", round_timeout_s=0.4)
    assert [answer.content for answer in run.answers] == ["two"]
    assert [(failure.name, failure.reason, failure.partial) for failure in run.failures] == [
        ("ann~1", "deadline", "one")
    ]


async def test_a_seats_system_text_stands_before_the_callers(choir: Choir) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, *HI]
    panel = (Seat("ann", "ann", system="Doubt."), Seat("bob", "bob"))
    await choir.put(Prompt(conversation), panel=panel)
    assert choir.servers["ann"].bodies[0]["messages"][0] == {"role": "system", "content": "Doubt.\n\nBe brief."}
    assert choir.servers["bob"].bodies[0]["messages"] == conversation
    await choir.put(Prompt(HI), panel=panel)
    assert choir.servers["ann"].bodies[1]["messages"] == [{"role": "system", "content": "Doubt."}, *HI]


async def test_in_a_second_layer_the_members_read_the_first_ones_answers(choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, lambda body: Script(("second" if "[answer A" in said(body) else "first",)))
    run = await choir.run(layers=2, analysis="off")
    assert [answer.content for answer in run.answers] == ["second"] * 3
    assert [[answer.content for answer in panel.answers] for panel in run.rounds] == [["first"] * 3, ["second"] * 3]
    assert said(choir.servers["ann"].bodies[1]).count("first") == 3
    assert [event.number for event in choir.events if isinstance(event, RoundStarted)] == [2]
    assert [call.role for call in run.calls] == ["panel"] * 6 + ["final"]


async def test_a_later_layer_below_the_quorum_leaves_the_answers_of_the_one_before(choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, lambda body: Script(ending="break") if "[answer A" in said(body) else Script(("first",)))
    run = await choir.run(layers=2, analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("The final answer", "degraded", "layer_below_quorum")
    assert [answer.content for answer in run.answers] == ["first"] * 3
    assert {failure.name for failure in run.failures} == set(MEMBERS)


def ranks(*order: str) -> Any:
    """A member's script: an answer, and later a ranking by what the answers say."""

    def script(body: Json) -> Script:
        if "Now rank" not in said(body):
            return Script((order[0],))
        letters = {
            said(body).split(f"[answer {letter} ")[1].split("\n")[1]: letter
            for letter in body["response_format"]["json_schema"]["schema"]["items"]["enum"]
        }
        return Script((json.dumps([letters[text] for text in order[1:]]),))

    return script


async def test_in_a_review_nobody_votes_for_an_answer_of_its_own(choir: Choir) -> None:
    choir.let("ann", ranks("red", "red", "green", "blue"))
    choir.let("bob", ranks("blue", "blue", "green", "red"))
    choir.let("cat", ranks("green", "green", "red", "blue"))
    run = await choir.run(review=True, analysis="off", seed=2)
    assert run.ranking == ["cat", "ann", "bob"]
    letters = {name: letter for letter, name in run.labels.items()}
    assert f"best first: {letters['cat']}, {letters['ann']}, {letters['bob']}" in choir.judge_prompt()
    assert [event.ranking for event in choir.events if isinstance(event, Reviewed)] == [["cat", "ann", "bob"]]
    assert [call.role for call in run.calls].count("review") == 3


async def test_a_review_that_nobody_gave_is_no_failure_of_the_run(choir: Choir) -> None:
    run = await choir.run(review=True, analysis="off")
    assert (run.ranking, run.status, run.content) == (None, "ok", "The final answer")


async def test_a_unanimous_panel_needs_no_judge(choir: Choir) -> None:
    say(choir, "Red.", "red", " RED ")
    run = await choir.run(early_exit="equal")
    assert (run.content, run.verdict.early_exit, run.status) == ("Red.", "equal", "ok")
    assert not choir.servers["judge"].bodies
    say(choir, "Red.", "red", "blue")
    run = await choir.run(early_exit="equal")
    assert (run.content, run.verdict.early_exit) == ("The final answer", "off")


@pytest.mark.parametrize(("word", "content"), [("yes", "It is red"), ("no", "The final answer")])
async def test_the_judge_may_say_that_all_agree(choir: Choir, word: str, content: str) -> None:
    say(choir, "It is red", "Red it is", "The colour red")
    choir.let("judge", judging(choice=lambda body: Script((word,))))
    run = await choir.run(early_exit="judge", analysis="off")
    assert run.content == content
    assert choir.servers["judge"].bodies[0]["structured_outputs"] == {"choice": ["yes", "no"]}


async def test_the_rules_gate_sends_a_tiny_request_to_one_model_and_says_why(choir: Choir) -> None:
    gate = Gate("rules", "cat", 3)
    run = await choir.run("Say hello.", gate=gate)
    assert (run.status, run.content, finals(choir)) == ("bypassed", "Hello there", "Hello there")
    assert run.gate
    assert run.gate.reason == "2 words, 3 at the most are for cat alone"
    assert [call.role for call in run.calls] == ["single"]
    assert not choir.servers["ann"].bodies
    longer = await choir.run("Say hello to all of them.", gate=gate)
    assert (longer.status, longer.gate and longer.gate.bypass) == ("ok", False)
    assert [event.decision.bypass for event in choir.events if isinstance(event, Gated)] == [True, False]


@pytest.mark.parametrize(("word", "status"), [("no", "bypassed"), ("yes", "ok")])
async def test_the_judge_may_be_the_gate(choir: Choir, word: str, status: str) -> None:
    choir.let("judge", judging(choice=lambda body: Script((word,))))
    run = await choir.run("Say hello to all of them.", gate=Gate("judge", "cat", 1))
    assert run.status == status
    assert run.calls[0].role == "gate"


async def test_a_gate_whose_model_fails_falls_back_to_the_panel(choir: Choir) -> None:
    choir.let("cat", Script((), ending="break"))
    run = await choir.run(gate=Gate("rules", "cat", 9), analysis="off")
    assert (run.content, run.gate and run.gate.bypass) == ("The final answer", False)
    choir.engines["cat"].status.state = "restarting"
    run = await choir.run(gate=Gate("rules", "cat", 9), analysis="off")
    assert run.gate
    assert run.gate.reason == "cat is not ready"


async def test_a_budget_holds_for_the_whole_run(choir: Choir) -> None:
    run = await choir.run(max_total_tokens=400, analysis="off")
    allowed = [choir.servers[name].bodies[0]["max_completion_tokens"] for name in (*MEMBERS, "judge")]
    assert allowed[:3] == [66] * 3
    spent_by_panel = sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in run.calls[:3])
    assert allowed[3] == 400 - spent_by_panel - 10
    assert sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in run.calls) <= 400


async def test_calls_at_once_share_what_is_left_of_a_budget(choir: Choir) -> None:
    say(choir, "red", "blue", "green")
    choir.let("judge", judging(choice=chooses(blue=0.9)))
    run = await choir.run(strategy="select", debias=True, max_total_tokens=400)
    assert (run.content, run.status) == ("blue", "ok")
    run = await choir.run(analysis="alongside", review=True, max_total_tokens=600)
    assert (run.content, run.status) == ("The final answer", "ok")
    analysis, final = choir.servers["judge"].bodies[-2:]
    assert (analysis["max_completion_tokens"], final["max_completion_tokens"]) == (150, 150)


async def test_a_budget_that_is_too_small_is_the_requests_fault(choir: Choir) -> None:
    with pytest.raises(RequestError, match="max_total_tokens") as raised:
        await choir.run(max_total_tokens=30)
    assert (raised.value.param, raised.value.code) == ("fusion.max_total_tokens", "budget_too_small")
    assert not choir.servers["ann"].bodies


async def test_a_budget_that_the_panel_used_up_gives_its_best_answer(choir: Choir) -> None:
    choir.servers["judge"].tokens = 1000
    run = await choir.run(max_total_tokens=200, analysis="off")
    assert (run.content, run.status, run.failure_reason) == ("Hello there", "degraded", "budget")
    assert not choir.servers["judge"].bodies


async def test_the_form_is_the_judges_and_the_members_only_if_asked(choir: Choir) -> None:
    choir.let("judge", judging(Script(('{"n": 1}',))))
    await choir.put(Prompt(HI, form=AS_JSON), analysis="off")
    assert schema_of(choir.servers["judge"].bodies[0]) == {**SCHEMA, **SPACING}
    assert "response_format" not in choir.servers["ann"].bodies[0]
    say(choir, '{"n": 2}', '{"n": 3}', '{"n": "x"}')
    run = await choir.put(Prompt(HI, form=AS_JSON), analysis="off", formatted_panel=True)
    assert schema_of(choir.servers["ann"].bodies[1]) == {**SCHEMA, **SPACING}
    assert [(failure.name, failure.reason) for failure in run.failures] == [("cat", "invalid_format")]


@pytest.mark.parametrize("strategy", ["select", "vote"])
async def test_select_and_vote_return_only_valid_answers(choir: Choir, strategy: str) -> None:
    say(choir, '{"n": 2}', "free text", '{"m": 2}')
    run = await choir.put(Prompt(HI, form=AS_JSON), strategy=strategy, quorum=1)
    assert (run.content, run.status) == ('{"n": 2}', "single")
    with pytest.raises(InsufficientQuorum, match="not JSON"):
        await choir.put(Prompt(HI, form=AS_JSON), strategy=strategy, quorum=2)


async def test_a_failed_judge_is_an_error_where_no_answer_has_the_form(choir: Choir) -> None:
    choir.let("judge", Script((), ending="break"))
    with pytest.raises(JudgeFailed, match="engine_broke"):
        await choir.put(Prompt(HI, form=AS_JSON), analysis="off")
    choir.let("bob", Script(('{"n": 7}',)))
    run = await choir.put(Prompt(HI, form=AS_JSON), analysis="off")
    assert (run.content, run.status) == ('{"n": 7}', "degraded")


@pytest.mark.parametrize(
    "half", [Script(('{"n":',), ending="break"), Script((), calls=(("look_up", "{}"),), ending="break")]
)
async def test_no_answer_follows_half_a_form_or_half_a_call(choir: Choir, half: Script) -> None:
    choir.let("bob", Script(('{"n": 7}',)))
    choir.let("judge", half)
    prompt = Prompt(HI, tools=TOOLS) if half.calls else Prompt(HI, form=AS_JSON)
    with pytest.raises(JudgeFailed, match="broke off"):
        await choir.put(prompt, analysis="off")


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALL = Script((), calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")


async def test_members_propose_tool_calls_and_the_judge_alone_makes_them(choir: Choir) -> None:
    for name in MEMBERS:
        choir.let(name, CALL)
    choir.let("judge", judging(CALL))
    prompt = Prompt(HI, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False)
    run = await choir.put(prompt, analysis="before")
    assert run.answer.tool_calls == [ToolCall(0, "call_0", "look_up", '{"name": "Ann"}')]
    assert run.answer.finish_reason == "tool_calls"
    compare, write = choir.servers["judge"].bodies
    assert (compare["tools"], compare["tool_choice"]) == (TOOLS, "none")
    assert (write["tools"], write["tool_choice"], write["parallel_tool_calls"]) == (TOOLS, "auto", False)
    assert said(write).count('[call look_up {"name": "Ann"}]') == 3
    assert "yours alone to call" in said(write)
    assert choir.servers["ann"].bodies[0]["tools"] == TOOLS
    pieces = [call for e in choir.events if isinstance(e, FinalDelta) for call in e.chunk.tool_calls]
    assert [piece.arguments for piece in pieces] == ["", '{"name"', ': "Ann"}']


async def test_equal_tool_calls_are_equal_answers(choir: Choir) -> None:
    for name, spelling in zip(MEMBERS, ('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1, "b": 3}'), strict=True):
        choir.let(name, Script((), calls=(("look_up", spelling),), finish_reason="tool_calls"))
    run = await choir.put(Prompt(HI, tools=TOOLS), strategy="vote")
    assert run.verdict.votes == {"ann": ["ann", "bob"], "cat": ["cat"]}
    assert run.answer.tool_calls[0].arguments == '{"a": 1, "b": 2}'


async def test_reasoning_is_kept_in_the_trace_and_shown_to_the_judge_only_if_asked(choir: Choir) -> None:
    choir.let("ann", Script(("\n\nred",), reasoning="I think so."))
    run = await choir.run(analysis="off")
    assert (run.answers[0].reasoning, run.answers[0].content) == ("I think so.", "red")
    assert "I think so." not in choir.judge_prompt()
    await choir.run(analysis="off", show_reasoning=True)
    assert "[reasoning] I think so.\nred" in choir.judge_prompt()


async def test_an_effort_is_passed_to_the_models_that_take_one(choir: Choir) -> None:
    choir.engines["ann"].traits = Traits(reasoning=True)
    await choir.put(Prompt(HI, reasoning_effort="low"), analysis="off")
    assert choir.servers["ann"].bodies[0]["reasoning_effort"] == "low"
    assert "reasoning_effort" not in choir.servers["bob"].bodies[0]
    assert "reasoning_effort" not in choir.servers["judge"].bodies[0]


IMAGE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
    }
]


async def test_images_go_to_the_members_that_take_them_and_are_named_to_the_judge(choir: Choir) -> None:
    for name in ("ann", "bob"):
        choir.engines[name].traits = Traits(images=True)
    run = await choir.put(Prompt(IMAGE), analysis="off")
    assert choir.servers["ann"].bodies[0]["messages"] == IMAGE
    assert [(failure.name, failure.reason) for failure in run.failures] == [("cat", "images_not_supported")]
    assert "an image that you cannot see" in choir.judge_prompt()
    assert "base64" not in choir.judge_prompt()


async def test_logprobs_are_those_of_the_tokens_that_are_returned(choir: Choir) -> None:
    token: Json = {"token": "x", "logprob": -0.5, "top_logprobs": []}
    choir.let("judge", judging(Script(("x",), logprobs=(token,))))
    run = await choir.put(Prompt(HI, logprobs=2), analysis="off")
    assert run.answer.logprobs == [token]
    assert choir.servers["judge"].bodies[0]["top_logprobs"] == 2
    assert "logprobs" not in choir.servers["ann"].bodies[0]
    choir.let("ann", Script(("red",), logprobs=(token,)))
    choir.let("bob", Script(("red",), logprobs=(token,)))
    run = await choir.put(Prompt(HI, logprobs=2), strategy="vote")
    assert (run.content, run.answer.logprobs) == ("red", [token])


async def test_the_callers_stop_texts_end_an_answer_that_is_returned_verbatim(choir: Choir) -> None:
    say(choir, "red STOP blue", "red STOP blue", "green")
    run = await choir.run(strategy="vote", judge_sampling=Sampling(stop=("STOP",)))
    assert (run.content, run.answer.stop_sequence, finals(choir)) == ("red ", "STOP", "red ")


async def test_a_layer_too_long_for_every_member_still_ends_with_the_first_answers(choir: Choir) -> None:
    error = {"message": "too long", "type": "BadRequestError", "param": "input_tokens", "code": 400}
    too_long = Script(refuse=(400, {"error": error}))
    for name in MEMBERS:
        choir.let(name, lambda body: too_long if "[answer A" in said(body) else Script(("first",)))
    run = await choir.run(layers=2, analysis="off")
    assert (run.status, run.failure_reason) == ("degraded", "layer_below_quorum")
    for name in MEMBERS:
        choir.let(name, too_long)
    with pytest.raises(ContextLengthExceeded):
        await choir.run(layers=2)
