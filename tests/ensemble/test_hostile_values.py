"""Answers with JSON that parsers reject: every run ends in a reply that can be sent, or in an error of Cappella's."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.ensemble.structured.json_value import parse_json
from cappella.errors import CappellaError
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.telemetry import run_events
from cappella.types import OutputFormat, Prompt
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, choice_script, judge_script
from support.scripted_engine import Script

HOSTILE = {
    "half a surrogate": '{"a": "\\ud800"}',
    "half a surrogate for a key": '{"\\udfff": 1}',
    "beyond 64 bits": '{"a": 1' + "0" * 40 + "}",
    "more digits than Python reads": '{"a": ' + "9" * 5000 + "}",
    "Infinity": '{"a": Infinity, "b": NaN, "c": 1e999}',
    "a deep list": "[" * 100_000,
    "a deep object": '{"a":' * 300 + "1" + "}" * 300,
    "deeper than Python": '{"a":' * 5000 + "1" + "}" * 5000,
    "the same key twice": '{"a": 1, "a": 2}',
    "NULs": '{"a": "\\u0000", "\\u0000": ["\\u0000"]}',
    "no object": '"a"',
    "a number with no end": "1," * 20_000,
}
USER = [{"role": "user", "content": "Hi"}]
REQUESTS: tuple[Any, ...] = (
    ChatRequest.model_validate({"model": "cappella/default", "messages": USER}),
    ResponsesRequest.model_validate({"model": "cappella/default", "input": "Hi"}),
    MessagesRequest.model_validate({"model": "cappella/default", "messages": USER, "max_tokens": 9}),
)


async def require_sent(fake_engines: FakeEngines, prompt: Prompt | None = None, **changes: Any) -> None:
    """The run ends in a reply that every API can send, or in a CappellaError."""
    try:
        run = await fake_engines.put(prompt or Prompt(USER), **changes)
    except CappellaError:
        return
    for request in REQUESTS:
        orjson.dumps(request.to_response(run))
    orjson.dumps([run_events.told(event) for event in fake_engines.events])


def let_members_answer(fake_engines: FakeEngines, text: str, members: Sequence[str]) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((text,)) if name in members else Script())
    fake_engines.let("judge", judge_script(choice=choice_script(Hello=0.9)))


def let_the_analysis_hold(fake_engines: FakeEngines, text: str, replaced: str) -> None:
    let_members_answer(fake_engines, text, ())
    fake_engines.let("judge", judge_script(analysis=Script((json.dumps(ANALYSIS).replace(replaced, text),))))


def let_a_tool_call_hold(fake_engines: FakeEngines, text: str) -> None:
    let_members_answer(fake_engines, text, ())
    fake_engines.let("judge", judge_script(final=Script((), calls=(("f", text),), finish_reason="tool_calls")))


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORMAT = OutputFormat("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OPTIONS: tuple[dict[str, Any], ...] = (
    {"strategy": "vote"},
    {"strategy": "vote", "seed": 3},
    {"early_exit": "equal"},
    {"review": True},
    {"strategy": "select"},
)


async def require_sent_from_everywhere(fake_engines: FakeEngines, text: str) -> None:
    """Every run ends, whether one member, all, or the judge in its analysis or tool call gives the text."""
    for members in (MEMBERS[:1], MEMBERS):
        for options in OPTIONS:
            let_members_answer(fake_engines, text, members)
            await require_sent(fake_engines, **options)
    let_members_answer(fake_engines, text, MEMBERS)
    await require_sent(fake_engines, Prompt(USER, output_format=FORMAT), strategy="vote")
    for replaced in (json.dumps(ANALYSIS), '["both greet"]', '"tone"'):
        let_the_analysis_hold(fake_engines, text, replaced)
        await require_sent(fake_engines)
    let_a_tool_call_hold(fake_engines, text)
    await require_sent(fake_engines, Prompt(USER, tools=[TOOL]), analysis="off")


async def test_no_value_of_the_table_breaks_a_run(fake_engines: FakeEngines, subtests: pytest.Subtests) -> None:
    for name, text in HOSTILE.items():
        with subtests.test(name):
            await require_sent_from_everywhere(fake_engines, text)


FRAGMENTS = st.lists(
    st.sampled_from(
        ('{"a": ', "[", "]", "}", '"', ",", ":", "\\ud800", "\\u0000", "1e999", "-", "9" * 30, "NaN", "null", "é")
    ),
    max_size=12,
).map("".join)


@settings(max_examples=settings().max_examples // 5, suppress_health_check=list(HealthCheck))
@given(FRAGMENTS | st.text(max_size=20))
async def test_no_fragments_of_json_break_a_run(fake_engines: FakeEngines, text: str) -> None:
    await require_sent_from_everywhere(fake_engines, text)


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "Infinity", "[" * 2000, '{"a":' * 70 + "1" + "}" * 70, "", "{"])
def test_values_that_later_steps_cannot_handle_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


def test_any_other_value_is_parsed_unchanged() -> None:
    assert parse_json('{"a": [1.5, 123456789012345678901234567890, "é"]}') == {
        "a": [1.5, 123456789012345678901234567890, "é"]
    }
