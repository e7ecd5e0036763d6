"""What a client may send, without a server: every field honoured, every other named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.config.options import Options
from cappella.config.overrides import Overrides
from cappella.errors import RequestError
from cappella.gateway import validation
from cappella.gateway.formats import fields as wire
from cappella.gateway.formats import policy
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.policy_ensembles import CHAT
from cappella.gateway.formats.policy_models import MODELS
from cappella.gateway.proxy import forwardable
from cappella.types import Sampling

USER = [{"role": "user", "content": "Hi"}]
KNOWN = set(CHAT.rules)
OF_MODELS = MODELS["/v1/chat/completions"]


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "cappella/default", "messages": USER, **fields}
    return validation.parse(ChatRequest, policy.read(CHAT, body, refuse_unknown=True))


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as raised:
        parse(**fields)
    return raised.value


def test_both_spellings_mean_the_same() -> None:
    wanted = {"analysis_models": ["ann"], "model": "bob", "deadline_seconds": 3, "temperature": 0}
    expected = Overrides(
        panel=("ann",), judge="bob", options=Options(deadline_s=3), panel_sampling=Sampling(temperature=0)
    )
    assert parse(fusion=wanted).options.overrides == expected
    assert parse(plugins=[{"id": "fusion", **wanted}]).options.overrides == expected
    assert parse().options.overrides == Overrides()


def test_sampling_at_the_top_is_for_the_final_answer() -> None:
    wanted = parse(temperature=0, top_p=0.5, presence_penalty=1, frequency_penalty=-1, seed=0, stop="x", max_tokens=3)
    assert wanted.sampling == Sampling(
        temperature=0,
        top_p=0.5,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=0,
        stop=("x",),
        max_completion_tokens=3,
    )
    assert wanted.options.overrides.panel_sampling == Sampling()


def test_a_conversation_passes_as_it_came() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "é"}]},
        {"role": "assistant", "content": "  x\n"},
        {"role": "user", "content": "?"},
    ]
    assert parse(messages=messages).prompt.messages == messages


@given(st.text(min_size=1, max_size=12).filter(lambda name: name not in KNOWN))
def test_an_unknown_field_is_named(name: str) -> None:
    error = refusal(**{name: 1})
    assert (error.param, error.code) == (name, "unknown_field")


@given(st.text(min_size=1, max_size=12).filter(lambda name: name not in set(wire.FusionPlugin.model_fields)))
def test_an_unknown_nested_field_is_named_with_its_path(name: str) -> None:
    assert refusal(fusion={name: 1}).param == f"fusion.{name}"
    assert refusal(plugins=[{"id": "fusion", name: 1}]).param == f"plugins.0.{name}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -2}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"messages": USER * 0}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "nick": "y"}]}, "messages.0.nick"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}]},
            "messages.0.content.0.y",
        ),
        ({"fusion": {"analysis": "maybe"}}, "fusion.analysis"),
        ({"fusion": {"min_successful_responses": 0}}, "fusion.min_successful_responses"),
        ({"fusion": {"round_timeout_seconds": 0}}, "fusion.round_timeout_seconds"),
        ({"fusion": {"deadline_seconds": 1e9}}, "fusion.deadline_seconds"),
        ({"fusion": {"analysis_models": []}}, "fusion.analysis_models"),
        ({"fusion": []}, "fusion"),
        ({"plugins": [{"id": "fusion"}] * 2}, "plugins"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ],
)
def test_a_wrong_value_is_named_as_the_client_spelt_it(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert str(error).startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"stop": 3}, "stop"), ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content")],
)
def test_a_wrong_value_of_two_allowed_kinds_is_named_as_the_client_spelt_it(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize("fields", [{"stop": [""]}, {"stop": [1]}])
def test_a_list_of_stops_is_told_what_is_wrong_with_the_list(fields: dict[str, Any]) -> None:
    assert not str(refusal(**fields)).startswith("stop.str:")


@pytest.mark.parametrize("stop", [[""], ["x", ""]])
def test_an_empty_stop_is_refused(stop: Any) -> None:
    assert (refusal(stop=stop).param or "").startswith("stop")


@given(st.text(max_size=12).filter(lambda name: name not in OF_MODELS.rules))
def test_a_member_called_by_name_is_sent_no_field_that_is_not_listed(name: str) -> None:
    sent = forwardable("/v1/chat/completions", {"model": "ann", name: 1}, b"")
    assert (sent.wire, sent.body, len(sent.ignored)) == ({"model": "ann"}, b'{"model":"ann"}', 1)
    with pytest.raises(RequestError) as raised:
        forwardable("/v1/chat/completions", {"model": "ann", name: 1}, b"", refuse_unknown=True)
    assert (raised.value.param or "", raised.value.code) == (name, "unknown_field")


def test_a_member_called_by_name_takes_every_listed_field() -> None:
    wire = {"model": "ann", **dict.fromkeys(OF_MODELS.honoured.split(), 1), "stream": True}
    assert forwardable("/v1/chat/completions", wire, b"as it came").body == b"as it came"
