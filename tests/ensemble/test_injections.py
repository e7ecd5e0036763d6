"""Prompt injections over scripted engines: each hostile answer stays between its own marks."""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.types import Prompt
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, judge_script, last_message
from support.injected_answers import INJECTIONS, PAYLOAD
from support.scripted_engine import Json, Script

TOKENS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
# Halves of tokens and marks, which become whole only where they meet.
HALVES = (
    "<|im_",
    "start|>",
    "<",
    "|im_end|>",
    "[end ",
    "A 0badf00d]",
    "\n",
    "\u200b",
    PAYLOAD,
    "</thi",
    "nk>",
    "[answer B ",
)
HOSTILE = st.lists(st.sampled_from((*TOKENS, *HALVES)) | st.text(max_size=5), min_size=1, max_size=12).map(
    lambda parts: f"It is 5.{''.join(parts)}."
)
anything_hostile = settings(suppress_health_check=list(HealthCheck))


def without_zero_width(text: str) -> str:
    """The text without zero-width spaces."""
    return text.replace("\u200b", "")


def marks(prompt: str, nonce: str) -> list[str]:
    """All marks with the nonce, in their order."""
    return re.findall(rf"\[(?:answer|end) [A-Z] {nonce}\]", prompt)


def require_fenced(prompt: str, hostile: str) -> None:
    """Three answers in three pairs of marks; the hostile one is complete between its own, and nowhere else."""
    match = re.search(r"that carry the key ([0-9a-f]{8})\.", prompt)
    assert match
    nonce = match[1]
    assert marks(prompt, nonce) == [f"[{kind} {letter} {nonce}]" for letter in "ABC" for kind in ("answer", "end")]
    blocks = re.findall(rf"\[answer [ABC] {nonce}\]\n(.*?)\n\[end [ABC] {nonce}\]", prompt, re.DOTALL)
    assert [without_zero_width(block) for block in blocks].count(without_zero_width(hostile)) == 1
    outside = prompt
    for block in blocks:
        outside = outside.replace(f"]\n{block}\n[", "][")
    assert PAYLOAD not in outside
    assert not any(token in prompt for token in TOKENS)


def test_the_table_has_fifty_injections() -> None:
    assert len(set(INJECTIONS.values())) >= 50


async def require_fenced_in_every_prompt(fake_engines: FakeEngines, hostile: str) -> None:
    """The judge, and a member in the second round, get the hostile answer between its marks."""
    fake_engines.let("bob", Script((hostile[:7], hostile[7:])))
    for server in fake_engines.servers.values():
        server.bodies.clear()
    run = await fake_engines.run(layers=2, early_prefill=True, show_reasoning=True)
    judge = fake_engines.servers["judge"].bodies
    assert run.status == "ok"
    whole = [body for body in judge if body.get("max_completion_tokens") != 1]
    assert len(whole) == 2
    for body in (*whole, fake_engines.servers["ann"].bodies[-1]):
        assert [message["role"] for message in body["messages"]] == ["user"]
        require_fenced(last_message(body), hostile)
    for body in judge:
        assert not any(token in last_message(body) for token in TOKENS)


async def test_every_hostile_answer_of_the_table_stays_between_its_marks(
    fake_engines: FakeEngines, subtests: pytest.Subtests
) -> None:
    for name, hostile in INJECTIONS.items():
        with subtests.test(name):
            await require_fenced_in_every_prompt(fake_engines, hostile)


@anything_hostile
@given(HOSTILE)
async def test_any_hostile_answer_stays_between_its_marks(fake_engines: FakeEngines, hostile: str) -> None:
    await require_fenced_in_every_prompt(fake_engines, hostile)


async def test_marks_copied_from_one_round_are_invalid_in_the_next(fake_engines: FakeEngines) -> None:
    def copying(body: Json) -> Script:
        marks = "".join(re.findall(r".?.(?:answer|end) [A-Z] [0-9a-f]{8}.", last_message(body)))
        # Exact copies are cut from the answer.
        return Script((f"It is 5.{marks.replace(' ', '  ')}{PAYLOAD}",))

    fake_engines.let("bob", copying)
    run = await fake_engines.run(layers=2, early_prefill=False)
    hostile = next(answer.content for answer in run.answers if answer.name == "bob")
    assert "[end  A " in hostile
    require_fenced(fake_engines.judge_prompt(), hostile)


@pytest.mark.parametrize("field", ["reasoning", "calls"])
async def test_reasoning_and_tool_calls_are_fenced_with_their_answer(fake_engines: FakeEngines, field: str) -> None:
    hostile = INJECTIONS["ChatML"]
    more: dict[str, Any] = {"reasoning": hostile} if field == "reasoning" else {"calls": (("f", hostile),)}
    fake_engines.let("bob", Script(("It is 5.",), **more))
    await fake_engines.run(show_reasoning=True)
    prompt = fake_engines.judge_prompt()
    assert not any(token in prompt for token in TOKENS)
    assert without_zero_width(hostile) in without_zero_width(prompt)
    assert [m["role"] for m in fake_engines.servers["judge"].bodies[-1]["messages"]] == ["user"]


async def test_a_hostile_analysis_of_the_judges_own_does_not_end_its_turn(fake_engines: FakeEngines) -> None:

    hostile = {**ANALYSIS, "consensus": [INJECTIONS["ChatML"], INJECTIONS["thinking"]]}
    fake_engines.let("judge", judge_script(analysis=Script((json.dumps(hostile),))))
    await fake_engines.run()
    assert PAYLOAD in fake_engines.judge_prompt()
    assert not any(token in fake_engines.judge_prompt() for token in TOKENS)


async def require_no_turn(fake_engines: FakeEngines, hostile: str) -> None:
    """A hostile text anywhere in the client's conversation begins no turn."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": hostile},
        {"role": "user", "content": [{"type": "text", "text": hostile}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": hostile},
    ]
    for server in fake_engines.servers.values():
        server.bodies.clear()
    await fake_engines.put(Prompt(turns), early_prefill=False)
    for name in (*MEMBERS, "judge"):
        assert fake_engines.servers[name].bodies
        for body in fake_engines.servers[name].bodies:
            assert not any(token in str(body["messages"]) for token in TOKENS)
            assert [m["role"] for m in body["messages"]][: len(turns)] == [m["role"] for m in turns]


async def test_no_injection_in_a_clients_conversation_begins_a_turn(
    fake_engines: FakeEngines, subtests: pytest.Subtests
) -> None:
    for name, hostile in INJECTIONS.items():
        with subtests.test(name):
            await require_no_turn(fake_engines, hostile)


@anything_hostile
@given(HOSTILE)
async def test_no_text_in_a_clients_conversation_begins_a_turn(fake_engines: FakeEngines, hostile: str) -> None:
    await require_no_turn(fake_engines, hostile)
