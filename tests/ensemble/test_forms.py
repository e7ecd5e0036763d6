"""Whether an answer has the form that was asked for, and whether two answers say the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble import agreement, forms
from cappella.runs import Answer, Call
from cappella.types import Form, Usage


def answer(content: str) -> Answer:
    return Answer("ann", content, "stop", Call("panel", "ann", Usage(), 0.0, None, 0.1))


def schema(value: Any) -> Form:
    return Form("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": value}})


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (schema({"type": "object", "required": ["a"]}), '{"a": 1}', "{}"),
        (Form("response_format", {"type": "json_object"}), "{}", "[]"),
        (Form("structured_outputs", {"json": {"type": "array"}}), "[]", "{}"),
        (Form("structured_outputs", {"json": '{"type": "array"}'}), "[]", "{}"),
        (Form("structured_outputs", {"json_object": True}), "{}", "7"),
        (Form("structured_outputs", {"choice": ["yes", "no"]}), "yes", "perhaps"),
        (Form("structured_outputs", {"regex": r"\d+"}), "12", "12 "),
    ],
)
def test_a_form_holds_or_says_why_not(form: Form, good: str, bad: str) -> None:
    forms.require_checkable(form)
    assert forms.problem(form, good) is None
    assert forms.problem(form, bad)
    assert forms.problem(None, bad) is None


def test_half_json_is_not_json() -> None:
    assert "not JSON" in (forms.problem(schema({}), '{"a": ') or "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is 5.", "it  is 5"),
        ("1,234.50", "1234.5"),
        ("5.0", "5"),
        ("YES!", "yes"),
        ('{"a": 1, "b": [true]}', '{"b": [true], "a": 1.0}'),
        ('{"a": "Red."}', '{"a": "red"}'),
    ],
)
def test_spelling_does_not_count(one: str, other: str) -> None:
    assert agreement.normalise(answer(one)) == agreement.normalise(answer(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "50"), ("1,2", "12"), ("-5", "5"), ('{"a": true}', '{"a": 1}'), ('{"a": null}', "{}"), ("1.05", "1.5")],
)
def test_another_value_is_another_answer(one: str, other: str) -> None:
    assert agreement.normalise(answer(one)) != agreement.normalise(answer(other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_value_is_equal_to_itself_and_has_one_leader(value: Any) -> None:
    assert agreement.canonical(value) == agreement.canonical(json.loads(json.dumps(value)))
    assert len(agreement.leaders([value, value, "another"])) == 1


@given(st.text(max_size=40))
def test_any_text_can_be_normalised(text: str) -> None:
    assert agreement.normalise(answer(text)) == agreement.normalise(answer(f" {text}\n"))
