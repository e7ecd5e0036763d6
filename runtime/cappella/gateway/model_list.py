"""The entries of `/v1/models`: ensembles, models and aliases, with what a client needs to know to call them."""

from collections.abc import Mapping
from typing import Any

from cappella.auth.keys import Key
from cappella.config import AnyModel, Config, Ensemble
from cappella.ensemble import capacity
from cappella.ensemble.capacity import Modality
from cappella.errors import RequestError
from cappella.gateway.reply_types import Architecture, ModelEntry

PREFIX = "cappella/"


def callable_names(config: Config, key: Key | None) -> list[str]:
    """The ensembles as `cappella/<name>`, the models by their own names, and the aliases of both, that the key may call."""
    names = [*(PREFIX + name for name in config.ensembles), *config.models_by_name, *config.server.aliases]
    return [name for name in names if key is None or key.may_call(config.meant_by(name))]


def named_model(config: Config, body: Mapping[str, Any]) -> str:
    """The ensemble or model that the body's `model` means, which may not exist. Raises RequestError if it is no string."""
    name = body.get("model")
    if not isinstance(name, str):
        raise RequestError("model must be a string.", "model")
    return config.meant_by(name)


def entry(config: Config, name: str, created: int) -> ModelEntry:
    """The entry of a callable name; that of an alias is its target's, with `alias_of`."""
    target = config.meant_by(name)
    ensemble = config.ensembles.get(target.removeprefix(PREFIX)) if target.startswith(PREFIX) else None
    head = _of_ensemble(config, ensemble) if ensemble else _of_model(config.models_by_name[target])
    head["id"], head["created"] = name, created
    if not head["tools"]:
        # Open WebUI sends tools of its own with each message, unless the entry says this.
        head["info"] = {"meta": {"capabilities": {"builtin_tools": False}}}
    if target != name:
        head["alias_of"] = target
    return head


def _of_ensemble(config: Config, ensemble: Ensemble) -> ModelEntry:
    models = config.models_by_name
    context, inputs = capacity.context_length(ensemble, models), capacity.input_modalities(ensemble, models)
    made: ModelEntry = {
        **_facts(context, inputs, ensemble.tools),
        "panel": [seat.name for seat in ensemble.seats],
        "judge": ensemble.judge.model,
        "examples": list(ensemble.examples),
    }
    if ensemble.notice:
        made["notice"] = ensemble.notice
    if ensemble.presets:
        made["presets"] = list(ensemble.presets)
    return made


def _of_model(model: AnyModel) -> ModelEntry:
    inputs: list[Modality] = ["text", "image"] if model.capabilities.images else ["text"]
    return _facts(model.context_tokens, inputs, model.capabilities.tools)


def _facts(context: int, inputs: list[Modality], tools: bool) -> ModelEntry:
    """An entry without a name. The context is given by vLLM's name and by OpenRouter's, the modalities in OpenRouter's form."""
    architecture: Architecture = {"input_modalities": inputs, "output_modalities": ["text"]}
    return {
        "id": "",
        "object": "model",
        "created": 0,
        "owned_by": "cappella",
        "max_model_len": context,
        "context_length": context,
        "architecture": architecture,
        "tools": tools,
    }
