"""Answers checked against the requested output format, and compared by meaning."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappella.engines.vllm import form_check
from cappella.ensemble import agreement
from cappella.ensemble.errors import InsufficientQuorum
from cappella.ensemble.run import Answer, Call
from cappella.ensemble.structured import formats
from cappella.extraction.spelling import canonical
from cappella.types import OutputFormat, Prompt, Usage
from support.fake_engines import MEMBERS, FakeEngines
from support.scripted_engine import Script


def answer(content: str) -> Answer:
    return Answer("ann", content, "stop", Call("panel", "ann", Usage(), 0.0, None, 0.1))


def schema(value: Any) -> OutputFormat:
    return OutputFormat("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": value}})


@pytest.mark.parametrize(
    ("output_format", "good", "bad"),
    [
        (schema({"type": "object", "required": ["a"]}), '{"a": 1}', "{}"),
        (OutputFormat("response_format", {"type": "json_object"}), "{}", "[]"),
        (OutputFormat("structured_outputs", {"json": {"type": "array"}}), "[]", "{}"),
        (OutputFormat("structured_outputs", {"json": '{"type": "array"}'}), "[]", "{}"),
        (OutputFormat("structured_outputs", {"json_object": True}), "{}", "7"),
        (OutputFormat("structured_outputs", {"choice": ["yes", "no"]}), "yes", "perhaps"),
        (OutputFormat("structured_outputs", {"regex": r"\d+"}), "12", "12 "),
        (OutputFormat("structured_outputs", {"regex": r"\u0061|\\u0061"}), "a", r"\u"),
    ],
)
async def test_a_violation_of_the_format_is_described(output_format: OutputFormat, good: str, bad: str) -> None:
    formats.require_checkable(output_format)
    assert await formats.violation(output_format, good) is None
    assert await formats.violation(output_format, bad)
    assert await formats.violation(None, bad) is None


async def test_incomplete_json_is_a_violation() -> None:
    assert "not JSON" in (await formats.violation(schema({}), '{"a": ') or "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is 5.", "it  is 5"),
        ("1,234.50", "1234.50"),
        ("5.0", "5"),
        ("It costs $1,000.", "it costs $1000"),
        ("**10.0** (or 10.00%)", "**10** (or 10%)"),
        ("Use `f(x)`.", "use  `f(x)`"),
        ("YES!", "yes"),
        ('{"a": 1, "b": [true]}', '{"b": [true], "a": 1.0}'),
        ('{"a": "Red."}', '{"a": "red"}'),
    ],
)
def test_answers_that_differ_in_spelling_are_equal(one: str, other: str) -> None:
    assert agreement.normalise(answer(one)) == agreement.normalise(answer(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "50"),
        ("1,2", "12"),
        ("-5", "5"),
        ("5!", "5"),
        ("1.05", "1.5"),
        ("10.0.0.10", "10.0.0.1"),
        ("Version 3.10", "Version 3.1"),
        ("01234", "1234"),
        ("+49 30", "49 30"),
        ("f(x+1)", "f(x1)"),
        ("f(X)", "f(x)"),
        ("`Order`", "`order`"),
        ("```\nif a:\n    b\nc\n```", "```\nif a:\n    b\n    c\n```"),
        ('{"a": true}', '{"a": 1}'),
        ('{"a": "1"}', '{"a": 1}'),
        ('{"a": null}', "{}"),
        ('{"a": "10.0.0.10"}', '{"a": "10.0.0.1"}'),
        ('{"a": "01234"}', '{"a": "1234"}'),
        ('{"a": "3.0"}', '{"a": "3"}'),
    ],
)
def test_answers_with_different_values_differ(one: str, other: str) -> None:
    assert agreement.normalise(answer(one)) != agreement.normalise(answer(other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_value_is_equal_to_itself_and_is_the_most_common(value: Any) -> None:
    assert canonical(value) == canonical(json.loads(json.dumps(value)))
    assert len(agreement.most_common([value, value, "another"])) == 1


@given(st.text(max_size=40))
def test_any_text_can_be_normalised(text: str) -> None:
    assert agreement.normalise(answer(text)) == agreement.normalise(answer(f" {text}\n"))


ALMOST_MATCHING = "a" * 6000
HARD_FOR_BACKTRACKING = [
    (OutputFormat("structured_outputs", {"regex": "(a+)+b"}), ALMOST_MATCHING),
    (OutputFormat("structured_outputs", {"regex": "(a|aa)+b?c*d?[ef]"}), ALMOST_MATCHING),
    (schema({"pattern": "^(a+)+b"}), json.dumps(ALMOST_MATCHING)),
    (schema({"patternProperties": {"^(a+)+b": {}}, "additionalProperties": False}), json.dumps({ALMOST_MATCHING: 1})),
    (schema({"items": {"enum": list(range(10_000))}}), json.dumps([10_000] * 16_000)),
]


@pytest.mark.parametrize(("output_format", "text"), HARD_FOR_BACKTRACKING)
async def test_a_pattern_that_is_hard_for_backtracking_is_matched(output_format: OutputFormat, text: str) -> None:
    formats.require_checkable(output_format)
    violation = await formats.violation(output_format, text)
    assert violation
    assert "checking its format took" not in violation


SELF_REFERENCE = {"properties": {"a": {"$ref": "#"}}}
DOUBLING = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(60)} | {"a60": {"type": "object"}}
SLOW_CHECKS: list[tuple[OutputFormat, str]] = [
    (schema({"allOf": [SELF_REFERENCE, SELF_REFERENCE]}), '{"a":' * 60 + "1" + "}" * 60),
    (schema({"$defs": DOUBLING, "$ref": "#/$defs/a0"}), "{}"),
    (schema({"items": {"enum": [{"a": i} for i in range(10_000)]}}), json.dumps([{"a": 9_999}] * 16_000)),
]


@pytest.mark.parametrize(("output_format", "text"), SLOW_CHECKS)
async def test_a_check_that_takes_too_long_is_stopped(output_format: OutputFormat, text: str) -> None:
    formats.require_checkable(output_format)
    assert "checking its format took" in (await formats.violation(output_format, text) or "")


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, {"x1": 1}, {"x1": "a"}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": {"type": "null"}}, {"x1": 1, "y": None}, {"y": 1}),
        ({"type": "array", "uniqueItems": True}, [1, True, {"a": 1}], [{"a": 1}, {"a": 1}]),
        ({"pattern": "b$"}, "ab", "ba"),
        ({"pattern": r"^[\u4e00-\u9fa5]+$"}, "\u4f60\u597d", "nihao"),
        (
            {
                "$ref": "#/$defs/list",
                "$defs": {"list": {"properties": {"next": {"$ref": "#/$defs/list"}}, "required": ["v"]}},
            },
            {"v": 1, "next": {"v": 2}},
            {"v": 1, "next": {}},
        ),
        ({"$defs": {"n": {"type": "null"}}, "items": {"$ref": "#/$defs/n"}}, [None], [1]),
    ],
)
async def test_keywords_keep_their_meaning_in_bounded_checks(value: Any, good: Any, bad: Any) -> None:
    formats.require_checkable(schema(value))
    assert await formats.violation(schema(value), json.dumps(good)) is None
    assert await formats.violation(schema(value), json.dumps(bad))


@pytest.mark.parametrize(
    ("output_format", "message"),
    [
        (schema({"$ref": "#/nowhere"}), "/nowhere"),
        (schema({"$ref": "https://example.com/schema"}), "example.com"),
        (schema({"$schema": {}}), "not of type"),
        (schema({"allOf": [{"unevaluatedProperties": False}]}), "unevaluatedProperties is not supported"),
        (schema({"pattern": "("}), "missing \\)"),
        (schema({"pattern": "^(?=.*[0-9]).+$"}), "look-around"),
        (schema({"items": {"patternProperties": {r"(a)\1": {}}}}), "back-references"),
        (schema({"anyOf": [{"pattern": f"[ab]{{{i}}}"} for i in range(1, 1000)]}), "too large"),
        (schema({"enum": list(range(60_000))}), "too large"),
        (OutputFormat("structured_outputs", {"regex": "(?!a)b"}), "look-around"),
        (OutputFormat("structured_outputs", {"json": "[" * 100_000}), "recursion"),
        (OutputFormat("structured_outputs", {"json": "[]"}), "not a JSON object"),
        (OutputFormat("structured_outputs", {"regex": "(" * 500}), "missing \\)"),
    ],
)
def test_a_format_that_cannot_be_checked_is_refused(output_format: OutputFormat, message: str) -> None:
    with pytest.raises(formats.InvalidFormat, match=message):
        formats.require_checkable(output_format)


async def test_json_that_no_parser_accepts_is_a_violation() -> None:
    for text in ("[" * 100_000, "1" * 5000, '"\ud800"x'):
        assert "not JSON" in (await formats.violation(schema({}), text) or "")


KEYWORDS = st.sampled_from(
    "type properties items required enum const anyOf allOf oneOf not pattern patternProperties additionalProperties"
    " uniqueItems minLength maximum multipleOf $ref $defs $schema $id if then else format dependentSchemas".split()
)
SCHEMAS = st.dictionaries(
    KEYWORDS,
    JSON
    | st.sampled_from(["#", "#/$defs/a", "object", "array", "(a+)+b", "(", ["a"], [{}], True, {"a": {"$ref": "#"}}])
    | st.dictionaries(st.text(max_size=3) | KEYWORDS, st.dictionaries(KEYWORDS, JSON, max_size=2), max_size=2),
    max_size=4,
)


@settings(max_examples=settings().max_examples * 2)
@given(SCHEMAS, JSON | st.sampled_from(["aaaaaaaaaaaaaaaaaaaaaaaaaaaac", {"a": {"a": {"a": 1}}}]))
async def test_any_schema_is_refused_or_checks_any_value(value: Any, instance: Any) -> None:
    try:
        formats.require_checkable(schema(value))
    except formats.InvalidFormat:
        return
    assert isinstance(await formats.violation(schema(value), json.dumps(instance)), str | None)


@given(
    st.text(max_size=12) | st.lists(st.sampled_from(list("ab()[]{}|*+?\\.^$,19<>=:!P")), max_size=14).map("".join),
    st.text(max_size=20),
)
async def test_any_pattern_is_refused_or_matched(pattern: str, text: str) -> None:
    output_format = OutputFormat("structured_outputs", {"regex": pattern})
    try:
        formats.require_checkable(output_format)
    except formats.InvalidFormat:
        return
    assert isinstance(await formats.violation(output_format, text), str | None)


LOOK_AHEAD = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "^(?=a)b"}}}},
    {"structured_outputs": {"regex": "^(?=a)b"}},
]


@pytest.mark.parametrize("fields", LOOK_AHEAD)
async def test_a_pattern_that_needs_more_than_linear_time_is_refused_with_400(gateway: str, fields: Any) -> None:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], **fields}
    async with aiohttp.ClientSession() as http, http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
        error = (await reply.json())["error"]
    assert (reply.status, error["param"], error["code"]) == (400, next(iter(fields)), "invalid_value")
    assert "look-around" in error["message"]


async def test_the_event_loop_goes_on_during_an_expensive_check(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    # vLLM takes no such schema; other servers do.
    monkeypatch.setattr(form_check, "_INSTALLED", False)
    output_format, text = SLOW_CHECKS[0]
    for name in MEMBERS:
        fake_engines.let(name, Script((text,)))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += all(fake_engines.servers[name].bodies for name in MEMBERS) and fake_engines.running == 0

    ticking = asyncio.create_task(tick())
    with pytest.raises(InsufficientQuorum, match="checking its format took"):
        await fake_engines.put(
            Prompt([{"role": "user", "content": "Hi"}], output_format=output_format), strategy="select"
        )
    ticking.cancel()
    assert ticks > 10
