"""An answer longer than its share of the reader's context is cut before it is read, instead of shutting out the reader."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from cappella.ensemble import prompts
from cappella.types import Capabilities
from support.fake_engines import FakeEngines, last_message
from support.scripted_engine import Json, Script

CONTEXT_TOKENS = 2000
CHARACTERS_PER_TOKEN = 4
RAMBLING = "Word. " * 20_000
TOO_LONG = Script(refuse=(400, {"error": {"message": "maximum context length", "code": "context_length_exceeded"}}))


def tokens(body: Json) -> int:
    """Dense texts, as in another script, have a token for each character."""
    text = "".join(str(message["content"]) for message in body["messages"])
    return math.ceil(sum(1.0 if character > "\u0400" else 1 / CHARACTERS_PER_TOKEN for character in text))


def limit(fake_engines: FakeEngines, *names: str) -> None:
    """Give the engines a context; a prompt that does not fit is refused."""
    for name in names:
        server = fake_engines.servers[name]
        server.tokens_of = tokens
        server.engine.capabilities = Capabilities(context_tokens=CONTEXT_TOKENS)
        server.script = limited(server.script)


def limited(answers: Callable[[Json], Script]) -> Callable[[Json], Script]:
    return lambda body: TOO_LONG if tokens(body) > CONTEXT_TOKENS else answers(body)


def answers_read(prompt: str) -> list[str]:
    return re.findall(r"\[answer [A-Z] [0-9a-f]{8}\]\n(.*?)\n\[end ", prompt, re.DOTALL)


@pytest.mark.parametrize("text", [RAMBLING, "\u5c06\u519b" * 20_000, "Word. " * 500 + "\u5c06" * 9000])
@pytest.mark.parametrize("analysis", ["before", "off"])
async def test_a_long_answer_is_cut_and_marked_and_the_short_ones_stay_whole(
    fake_engines: FakeEngines, text: str, analysis: str
) -> None:
    fake_engines.let("bob", Script((text,)))
    limit(fake_engines, "judge")
    run = await fake_engines.run(analysis=analysis, early_prefill=False)
    assert (run.status, run.failure_reason) == ("ok", None)
    read = answers_read(fake_engines.judge_prompt())
    (cut,) = [each for each in read if each != "Hello there"]
    assert read.count("Hello there") == 2
    assert cut.endswith(prompts.CUT_LINE)
    assert text.startswith(cut.removesuffix(prompts.CUT_LINE))
    assert len(cut) > len(prompts.CUT_LINE) + 200
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
async def test_other_readers_of_answers_get_them_cut_too(fake_engines: FakeEngines, options: dict[str, Any]) -> None:
    fake_engines.let("bob", Script((RAMBLING,)))
    limit(fake_engines, "judge", "ann", "cat")
    await fake_engines.run(analysis="off", early_prefill=False, **options)
    limited = (fake_engines.servers[name] for name in ("judge", "ann", "cat"))
    fenced = [last_message(body) for server in limited for body in server.bodies if "[answer " in last_message(body)]
    assert fenced
    assert all(prompts.CUT_LINE in prompt for prompt in fenced)


async def test_a_member_reads_the_answers_of_the_round_before_cut(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script((RAMBLING,)))
    limit(fake_engines, "judge", "ann")
    run = await fake_engines.run(layers=2, analysis="off", early_prefill=False)
    assert run.failure_reason is None
    assert [len(panel.failures) for panel in run.rounds] == [0, 0]
    assert prompts.CUT_LINE in last_message(fake_engines.servers["ann"].bodies[-1])


async def test_answers_that_fit_are_neither_cut_nor_counted(fake_engines: FakeEngines) -> None:
    limit(fake_engines, "judge")
    run = await fake_engines.run(early_prefill=False)
    assert run.status == "ok"
    assert fake_engines.servers["judge"].counted == 1  # the conversation, beside the run
    assert prompts.CUT_LINE not in fake_engines.judge_prompt()
