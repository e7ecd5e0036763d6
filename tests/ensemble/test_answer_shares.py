"""Answers are fitted to what their reader can hold: long ones lose their middle, and the reader keeps room for its own."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from cappella.ensemble import prompts
from cappella.ensemble.run import Run
from cappella.types import Capabilities, Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines, judge_script, last_message
from support.scripted_engine import Json, Script, too_long

CONTEXT_TOKENS = 2000
CHARACTERS_PER_TOKEN = 4
RAMBLING = "First words. " + "Word. " * 20_000 + "Last words."
LEFT_OUT = re.compile(re.escape(prompts.MIDDLE_LINE).replace(r"\{tokens\}", r"(\d+)"))


def tokens(body: Json) -> int:
    """Dense texts, as in another script, have a token for each character."""
    text = "".join(str(message["content"]) for message in body["messages"]) + json.dumps(body.get("tools", ""))
    return math.ceil(sum(1.0 if character > "\u0400" else 1 / CHARACTERS_PER_TOKEN for character in text))


def limit(fake_engines: FakeEngines, *names: str, context: int = CONTEXT_TOKENS) -> None:
    """Give the engines a context; a prompt that does not fit is refused."""
    for name in names:
        server = fake_engines.servers[name]
        server.tokens_of = tokens
        server.engine.capabilities = Capabilities(context_tokens=context)
        server.script = limited(server.script, context)


def limited(answers: Callable[[Json], Script], context: int) -> Callable[[Json], Script]:
    return lambda body: too_long(context) if tokens(body) > context else answers(body)


def answers_read(prompt: str) -> list[str]:
    return re.findall(r"\[answer [A-Z] [0-9a-f]{8}\]\n(.*?)\n\[end ", prompt, re.DOTALL)


def told(run: Run) -> dict[str, tuple[int, int]]:
    return {each.name: (each.tokens, each.of) for each in run.shortened}


@pytest.mark.parametrize("text", [RAMBLING, "\u5c06\u519b" * 20_000, "Word. " * 500 + "\u5c06" * 9000])
@pytest.mark.parametrize("analysis", ["before", "off"])
async def test_the_middle_of_a_long_answer_is_left_out_and_told_and_the_short_ones_stay_whole(
    fake_engines: FakeEngines, text: str, analysis: str
) -> None:
    fake_engines.let("bob", Script((text,)))
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis=analysis, early_prefill=False)
    assert (run.status, run.failure_reason) == ("ok", None)
    read = answers_read(fake_engines.judge_prompt())
    (part,) = [each for each in read if each != "Hello there"]
    assert read.count("Hello there") == 2
    head, left_out, tail = LEFT_OUT.split(part)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert min(len(head), len(tail)) > 100
    ((name, (kept, of)),) = told(run).items()
    assert name == "bob"
    assert int(left_out) == of - kept > 0
    assert of == pytest.approx(tokens({"messages": [{"content": text}]}), abs=2)
    # The answer itself is not changed.
    assert next(answer.content for answer in run.answers if answer.name == "bob") == text


async def test_several_long_answers_share_what_the_short_ones_leave(fake_engines: FakeEngines) -> None:
    for name in ("ann", "bob"):
        fake_engines.let(name, Script((RAMBLING,)))
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis="off", early_prefill=False)
    assert run.status == "ok"
    lengths = sorted(map(len, answers_read(fake_engines.judge_prompt())))
    assert lengths[0] == len("Hello there")
    assert lengths[1] == lengths[2] > 1000


@pytest.mark.parametrize("options", [{"strategy": "select"}, {"early_exit": "judge"}, {"review": True}])
async def test_other_readers_of_answers_get_them_shortened_too(
    fake_engines: FakeEngines, options: dict[str, Any]
) -> None:
    fake_engines.let("bob", Script((RAMBLING,)))
    limit(fake_engines, "judge", "ann", "cat")
    await fake_engines.run(analysis="off", early_prefill=False, **options)
    limited = (fake_engines.servers[name] for name in ("judge", "ann", "cat"))
    fenced = [last_message(body) for server in limited for body in server.bodies if "[answer " in last_message(body)]
    assert fenced
    assert all(LEFT_OUT.search(prompt) for prompt in fenced)


async def test_a_member_reads_the_answers_of_the_round_before_shortened(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script((RAMBLING,)))
    limit(fake_engines, "judge", "ann")
    run = await fake_engines.run(layers=2, analysis="off", early_prefill=False)
    assert run.failure_reason is None
    assert [len(panel.failures) for panel in run.rounds] == [0, 0]
    assert LEFT_OUT.search(last_message(fake_engines.servers["ann"].bodies[-1]))


async def test_answers_that_fit_are_neither_shortened_nor_counted(fake_engines: FakeEngines) -> None:
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis="off", early_prefill=False)
    assert (run.status, run.shortened) == ("ok", [])
    assert fake_engines.servers["judge"].counted == 1  # the conversation, beside the run
    assert not LEFT_OUT.search(fake_engines.judge_prompt())


@pytest.mark.parametrize("wanted", [None, 32_000, 600])
async def test_room_for_the_judges_own_answer_is_kept_first(fake_engines: FakeEngines, wanted: int | None) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((RAMBLING,)))
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis="off", judge_sampling=Sampling(max_completion_tokens=wanted))
    assert run.status == "ok"
    left = CONTEXT_TOKENS - tokens(fake_engines.servers["judge"].bodies[-1])
    assert left >= min(wanted or CONTEXT_TOKENS // 4, CONTEXT_TOKENS // 2)


async def test_a_conversation_that_leaves_no_room_is_not_answered_in_a_few_tokens(fake_engines: FakeEngines) -> None:
    limit(fake_engines, "judge")
    run = await fake_engines.run("Why? " * 1500, analysis="off")
    assert (run.status, run.failure_reason, run.content) == ("degraded", "context_length_exceeded", "Hello there")
    assert fake_engines.servers["judge"].bodies == []


@pytest.mark.parametrize(("words", "status"), [(2400, "ok"), (2900, "degraded")])
async def test_a_reply_is_begun_only_where_there_is_room_for_one(
    fake_engines: FakeEngines, words: int, status: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((RAMBLING,)))
    limit(fake_engines, "judge")
    run = await fake_engines.run("a " * words, analysis="off", early_prefill=False)
    assert run.status == status
    for body in fake_engines.servers["judge"].bodies:
        assert CONTEXT_TOKENS - tokens(body) >= CONTEXT_TOKENS // 8


async def test_tools_and_criteria_count_as_well(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((RAMBLING,)))
    limit(fake_engines, "judge", context=4000)
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "word " * 600}}}
    tool = {"type": "function", "function": {"name": "get", "parameters": parameters}}
    prompt = Prompt([{"role": "user", "content": "Hi"}], [tool], "auto")
    run = await fake_engines.put(prompt, analysis="off", criteria="Be kind. " * 300)
    assert run.status == "ok"
    assert len(run.shortened) == 3


async def test_an_engine_that_finds_more_tokens_than_were_counted_is_asked_with_less(fake_engines: FakeEngines) -> None:
    """As an attached server's, whose sizes are estimated."""
    for name in MEMBERS:
        fake_engines.let(name, Script((RAMBLING,)))
    limit(fake_engines, "judge")
    fake_engines.servers["judge"].tokens_of = lambda body: tokens(body) // 2
    for options in ({"analysis": "before"}, {"analysis": "alongside"}, {"strategy": "select"}):
        run = await fake_engines.run(early_prefill=False, **options)
        assert run.failure_reason != "context_length_exceeded", options


async def test_a_tokenizer_that_does_not_answer_leaves_less_and_degrades_nothing(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script((RAMBLING,)))
    limit(fake_engines, "judge")

    def broken(_: Json) -> int:
        raise ValueError("no tokenizer")

    fake_engines.servers["judge"].tokens_of = broken
    run = await fake_engines.run(analysis="off", early_prefill=False)
    assert run.status == "ok"
    assert [each.name for each in run.shortened] == ["bob"]


@pytest.mark.parametrize("order", ["arrival", "shuffled"])
@pytest.mark.parametrize("lengths", [(30, 30, 300), (150, 300, 30), (300, 30, 30)])
async def test_what_the_judge_prefilled_early_is_a_prefix_of_what_it_reads(
    fake_engines: FakeEngines, order: str, lengths: tuple[int, int, int]
) -> None:
    for name, length in zip(MEMBERS, lengths, strict=True):
        pieces = tuple(f"word {number} and some more words. " for number in range(length))
        fake_engines.let(name, Script(pieces, pause_s=0.005 if name == "cat" else 0.0))
    limit(fake_engines, "judge")
    for seed in range(2):
        fake_engines.servers["judge"].bodies.clear()
        run = await fake_engines.run(analysis="off", answer_order=order, seed=seed)
        *early, final = fake_engines.servers["judge"].bodies
        assert run.status == "ok"
        assert all(last_message(final).startswith(last_message(body)) for body in early)
        assert {body["max_completion_tokens"] for body in early} <= {1}


async def test_answers_that_exceed_the_context_are_folded(fake_engines: FakeEngines) -> None:
    texts = {name: f"{name} says. " + "word " * 300 for name in MEMBERS}
    for name, text in texts.items():
        fake_engines.let(name, Script((text,)))
    drafts = iter(["draft one", "draft two"])

    def write(body: Json) -> Script:
        return Script((next(drafts),)) if "response_format" not in body and not is_last(body) else judge_script()(body)

    def is_last(body: Json) -> bool:
        return "draft one" in last_message(body)

    fake_engines.let("judge", write)
    limit(fake_engines, "judge", context=2200)
    run = await fake_engines.run(answers_exceed="fold", early_prefill=False)
    assert (run.status, run.content, run.shortened) == ("ok", "The final answer", [])
    assert [call.role for call in run.calls if call.seat == "judge"] == ["analysis", "fold", "final"]
    _, first, last = [answers_read(last_message(body)) for body in fake_engines.servers["judge"].bodies]
    assert last[0] == "draft one"
    assert sorted([*first, *last[1:]]) == sorted(texts.values())


async def test_answers_that_fit_are_not_folded(fake_engines: FakeEngines) -> None:
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis="off", answers_exceed="fold")
    assert [call.role for call in run.calls if call.seat == "judge"] == ["final"]


@pytest.mark.parametrize("refused", ["fold", "final"])
async def test_a_window_that_is_refused_is_asked_again_with_less_room(fake_engines: FakeEngines, refused: str) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((f"{name} says. " + "word " * 300,)))
    read: dict[str, list[int]] = {"fold": [], "final": []}

    def write(body: Json) -> Script:
        role = "final" if "A draft." in last_message(body) else "fold"
        read[role].append(len(last_message(body)))
        if role == refused and read[role][-1] > 3000:
            return too_long()
        return Script(("A draft. " + "word " * 300 if role == "fold" else "The final answer",))

    fake_engines.let("judge", write)
    limit(fake_engines, "judge", context=1500)
    run = await fake_engines.run(analysis="off", answers_exceed="fold", early_prefill=False)
    assert (run.status, run.content) == ("ok", "The final answer")
    assert read[refused][0] > 3000 > read[refused][-1]
    assert {each.name for each in run.shortened} <= set(MEMBERS)
    assert run.shortened
