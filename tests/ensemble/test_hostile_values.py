"""Answers that are JSON no parser likes: a run goes on, or fails in words; it never breaks, and its reply can be sent."""

import json
from typing import Any

import orjson
import pytest

from cappella.ensemble.structured.json_value import value_of
from cappella.errors import CappellaError
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.telemetry import trace
from cappella.types import Form, Prompt
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, chooses, judging
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
TEXTS = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
USER = [{"role": "user", "content": "Hi"}]
REQUESTS: tuple[Any, ...] = (
    ChatRequest.model_validate({"model": "cappella/default", "messages": USER}),
    ResponsesRequest.model_validate({"model": "cappella/default", "input": "Hi"}),
    MessagesRequest.model_validate({"model": "cappella/default", "messages": USER, "max_tokens": 9}),
)


async def require_sent(fake_engines: FakeEngines, prompt: Prompt | None = None, **changes: Any) -> None:
    """The run ends in a reply that every API can send, or in an error of ours."""
    try:
        run = await fake_engines.put(prompt or Prompt(USER), **changes)
    except CappellaError:
        return
    for request in REQUESTS:
        orjson.dumps(request.whole(run))
    orjson.dumps([trace.event(event) for event in fake_engines.events])


@TEXTS
@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "vote"},
        {"strategy": "vote", "seed": 3},
        {"early_exit": "equal"},
        {"review": True},
        {"strategy": "select"},
    ],
    ids=str,
)
@pytest.mark.parametrize("by", ["one", "most"])
async def test_members_that_say_it(fake_engines: FakeEngines, text: str, changes: dict[str, Any], by: str) -> None:
    for name in MEMBERS[:1] if by == "one" else MEMBERS:
        fake_engines.let(name, Script((text,)))
    fake_engines.let("judge", judging(choice=chooses(Hello=0.9)))
    await require_sent(fake_engines, **changes)


@TEXTS
@pytest.mark.parametrize("field", ["consensus", "topic", "whole"])
async def test_a_judge_that_says_it_in_its_analysis(fake_engines: FakeEngines, text: str, field: str) -> None:
    analysis = json.dumps(ANALYSIS)
    said = {
        "whole": text,
        "consensus": analysis.replace('["both greet"]', text),
        "topic": analysis.replace('"tone"', text),
    }
    fake_engines.let("judge", judging(analysis=Script((said[field],))))
    await require_sent(fake_engines)


@TEXTS
async def test_a_judge_that_calls_a_tool_with_it(fake_engines: FakeEngines, text: str) -> None:
    fake_engines.let("judge", judging(final=Script((), calls=(("f", text),), finish_reason="tool_calls")))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    await require_sent(fake_engines, Prompt(USER, tools=[tool]), analysis="off")


@TEXTS
async def test_a_form_that_it_should_have(fake_engines: FakeEngines, text: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = Form("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    for name in MEMBERS:
        fake_engines.let(name, Script((text,)))
    await require_sent(fake_engines, Prompt(USER, form=form), strategy="vote")


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "Infinity", "[" * 2000, '{"a":' * 70 + "1" + "}" * 70, "", "{"])
def test_what_nobody_else_would_take_is_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        value_of(text)


def test_any_other_value_is_read_as_it_stands() -> None:
    assert value_of('{"a": [1.5, 123456789012345678901234567890, "é"]}') == {
        "a": [1.5, 123456789012345678901234567890, "é"]
    }
