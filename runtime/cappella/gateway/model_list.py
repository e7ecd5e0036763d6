"""The entries of `/v1/models`: ensembles, models and aliases, with what a client needs to know to call them."""

from collections.abc import Mapping
from typing import Any

from cappella.auth import keys
from cappella.auth.keys import Key
from cappella.config import AnyModel, Config, Ensemble
from cappella.ensemble import capacity
from cappella.ensemble.capacity import Modality
from cappella.errors import RequestError
from cappella.gateway.formats import policy_ensembles, policy_models
from cappella.gateway.reply_types import Architecture, ModelEntry, Output
from cappella.vocabulary import Task

PREFIX = "cappella/"
PARAMETERS = (
    "temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty max_tokens max_completion_tokens"
    " logit_bias logprobs top_logprobs seed response_format structured_outputs stop tools tool_choice parallel_tool_calls"
    " include_reasoning reasoning reasoning_effort verbosity"
).split()
"""The fields of a chat for which OpenRouter's list has a word."""


_SCORED = ("/v1/rerank", "/v1/score")
ENDPOINTS_OF: Mapping[Task, tuple[str, ...]] = {
    "generate": ("/v1/chat/completions", "/v1/responses", "/v1/messages"),
    "embed": ("/v1/embeddings", *_SCORED),
    "rerank": _SCORED,
    "reward": ("/classify",),
}
"""The endpoints that answer for a model of each task; single models that write have /v1/completions, too."""


def callable_names(config: Config, key: Key | None) -> list[str]:
    """The ensembles as `cappella/<name>`, the models by their own names, and the aliases of both, that the key may call."""
    names = [*(PREFIX + name for name in config.ensembles), *config.models_by_name, *config.server.aliases]
    return [name for name in names if key is None or key.may_call(config.meant_by(name))]


def stray_keys(config: Config) -> list[str]:
    """The keys that name models, ensembles or documents which the config does not have, as warnings."""
    if config.server.keys is None:
        return []
    models = [*(PREFIX + name for name in config.ensembles), *config.models_by_name]
    return [f"warning: {each}" for each in keys.stray_names(config.server.keys, models, config.documents)]


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
    head["id"] = head["name"] = head["canonical_slug"] = name
    head["created"], head["links"] = created, {"details": f"/v1/models/{name}"}
    if not head["tools"] and head["task"] == "generate":
        # Open WebUI sends tools of its own with each message, unless the entry says this.
        head["info"] = {"meta": {"capabilities": {"builtin_tools": False}}}
    if target != name:
        head["alias_of"] = target
    return head


def _of_ensemble(config: Config, ensemble: Ensemble) -> ModelEntry:
    models = config.models_by_name
    context, inputs = capacity.context_length(ensemble, models), capacity.input_modalities(ensemble, models)
    judge = ensemble.judge_of(ensemble)
    made: ModelEntry = {
        **_facts(context, inputs, ensemble.tools, policy_ensembles.CHAT.honoured),
        "panel": [seat.name for seat in ensemble.seats],
        "judge": judge.model if judge else None,
        "examples": list(ensemble.examples),
    }
    if ensemble.notice:
        made["notice"] = ensemble.notice
    if ensemble.presets:
        made["presets"] = list(ensemble.presets)
    return made


def _of_model(model: AnyModel) -> ModelEntry:
    inputs: list[Modality] = ["text", "image"] if model.capabilities.images else ["text"]
    honoured = policy_models.MODELS["/v1/chat/completions"].honoured
    if model.task == "generate":
        return _facts(model.context_tokens, inputs, model.capabilities.tools, honoured)
    made = _facts(model.context_tokens, inputs, False, "")
    output: Output = "embeddings" if model.task == "embed" else "scores"
    made["architecture"] = {"modality": f"text->{output}", "input_modalities": inputs, "output_modalities": [output]}
    made["task"], made["endpoints"] = model.task, list(ENDPOINTS_OF[model.task])
    return made


def _facts(context: int, inputs: list[Modality], tools: bool, honoured: str) -> ModelEntry:
    """An entry without a name. The context is given by vLLM's name and by OpenRouter's; OpenRouter's clients require its words."""
    architecture: Architecture = {
        "modality": f"{'+'.join(inputs)}->text",
        "input_modalities": inputs,
        "output_modalities": ["text"],
    }
    taken = set(honoured.split())
    return {
        "id": "",
        "name": "",
        "canonical_slug": "",
        "object": "model",
        "created": 0,
        "owned_by": "cappella",
        "max_model_len": context,
        "context_length": context,
        "architecture": architecture,
        "task": "generate",
        "endpoints": list(ENDPOINTS_OF["generate"]),
        "tools": tools,
        "pricing": {"prompt": "0", "completion": "0"},
        "supported_parameters": [each for each in PARAMETERS if each in taken and (tools or "tool" not in each)],
        "default_parameters": None,
        "per_request_limits": None,
        "supported_voices": None,
        "top_provider": {"context_length": context, "max_completion_tokens": None, "is_moderated": False},
        "links": {},
    }
