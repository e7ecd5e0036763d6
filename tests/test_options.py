"""An option is declared once: config, preset, request, settings, OpenAPI and the reference follow from the declaration."""

from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from cappella import vocabulary
from cappella.cli import completion
from cappella.cli.client.slash import HELP
from cappella.config import Ensemble, Judge, Member, Model
from cappella.config.cards import Card
from cappella.config.options import EnsembleOptions, Options, Settings
from cappella.config.overrides import Overrides
from cappella.config.weighing import Agreement, Selection
from cappella.engines.vllm import protocol
from cappella.ensemble.settings import resolve
from cappella.ensemble.strategies import STRATEGIES
from cappella.gateway import openapi, validation
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.fields import OPTIONS
from cappella.gateway.formats.policy import Reading
from cappella.gateway.formats.policy_models import MODELS
from cappella.types import Prompt, Sampling, SamplingOptions
from cappella.vocabulary import Strategy

MODEL = Model.model_validate({"weights": "w", "max_model_len": 100})
USER = [{"role": "user", "content": "Hi"}]
OTHERS = {"samples": 2, "select": Selection(margin=2), "agreement": Agreement(by="judge"), "weights": {"ann": 1.5}}
"""Values of the options that are objects."""
IN_CONFIG = sorted(EnsembleOptions.model_fields)


def other_than_default(schema: type[BaseModel], name: str) -> Any:
    """A value that the field takes and that is not its default."""
    field = schema.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if isinstance(field.default, bool):
        return not field.default
    if not isinstance(kinds[0], type) and get_origin(kinds[0]) is None:
        return next(word for word in kinds if word != field.default)
    if name in OTHERS:
        return OTHERS[name]
    kind = kinds[0] if isinstance(kinds[0], type) else get_args(kinds[0])[0]
    return "x" if kind is str or name == "stop" else 1 if field.default is None else 2


def ensemble(**fields: Any) -> Ensemble:
    gate = {"mode": "off", "model": "ann"}
    return Ensemble.model_validate({"panel": ["ann", "bob"], "judge": "ann", "gate": gate, **fields})


def resolved(fusion: dict[str, Any], **fields: Any) -> Settings:
    asked = validation.parse(ChatRequest, Reading({"model": "cappella/x", "messages": USER, "fusion": fusion}))
    return resolve("x", ensemble(**fields), {"ann": MODEL, "bob": MODEL}, asked.overrides, asked.prompt, asked.sampling)


@pytest.mark.parametrize("name", IN_CONFIG)
def test_every_option_is_set_by_an_ensemble_and_by_its_presets(name: str) -> None:
    value = other_than_default(Options, name)
    default = 2 if name == "quorum" else Options.model_fields[name].default
    presets = {"set": {name: value}, "null": {name: None}}
    assert getattr(resolved({}, **{name: value}), name) == value
    assert getattr(resolved({"preset": "set"}, presets=presets), name) == value
    assert getattr(resolved({"preset": "null"}, presets=presets, **{name: value}), name) == value
    assert getattr(resolved({"preset": "null"}, presets=presets), name) == default


@pytest.mark.parametrize("name", sorted(Options.model_fields))
def test_every_option_is_set_by_a_request_under_its_name_on_the_wire(name: str) -> None:
    value = other_than_default(Options, name)
    settings = resolved({OPTIONS[name]: value})
    assert (settings.gate.mode if name == "gate" and settings.gate else getattr(settings, name)) == value
    if name in EnsembleOptions.model_fields:
        assert getattr(resolved({OPTIONS[name]: None}, **{name: value}), name) == value


def test_an_option_in_seconds_is_spelt_out_on_the_wire_and_bounded_there() -> None:
    assert OPTIONS["deadline_s"] == "deadline_seconds"
    assert resolved({}, deadline_s=7200).deadline_s == 7200
    schema = openapi.document(keyed=False)["components"]["schemas"]["Fusion"]["properties"]["deadline_seconds"]
    assert schema["anyOf"][0]["maximum"] == 3600


def test_an_option_that_says_what_is_the_default_goes_over_what_the_ensemble_says() -> None:
    assert resolved({"strategy": "synthesize"}, strategy="vote").strategy == "synthesize"
    assert Overrides(options=Options(strategy="synthesize")).beyond_preset
    assert not Overrides(preset="quick", options=Options()).beyond_preset


def test_the_document_says_of_every_option_what_its_declaration_says() -> None:
    properties = openapi.document(keyed=False)["components"]["schemas"]["Fusion"]["properties"]
    said = {name: properties[OPTIONS[name]].get("description") for name in Options.model_fields}
    assert said == {name: field.description for name, field in Options.model_fields.items()}
    assert all(said.values())


@pytest.mark.parametrize("name", sorted(Sampling.model_fields))
def test_every_sampling_setting_comes_from_a_request_to_an_engine(name: str) -> None:
    value = other_than_default(Sampling, name)
    asked = validation.parse(ChatRequest, Reading({"model": "cappella/x", "messages": USER, name: value}))
    body = protocol.body("ann", Prompt(USER), asked.sampling)
    assert body[name] in (value, (value,))
    assert name in MODELS["/v1/chat/completions"].honoured.split()


@pytest.mark.parametrize("name", sorted(SamplingOptions.model_fields))
def test_every_sampling_setting_of_a_config_is_one_of_seats_judges_and_cards(name: str) -> None:
    value = other_than_default(SamplingOptions, name)
    for seat in (
        Member.model_validate({"model": "ann", name: value}),
        Judge.model_validate({"model": "a", name: value}),
    ):
        assert getattr(seat.sampling, name) == value
    assert Card.model_fields["sampling"].annotation is SamplingOptions


def test_every_list_has_every_strategy_in_the_same_order() -> None:
    names = list(get_args(Strategy))
    assert names == list(vocabulary.STRATEGIES) == list(STRATEGIES) == completion.strategies("")
    assert all(name in HELP["/strategy"] for name in names)
