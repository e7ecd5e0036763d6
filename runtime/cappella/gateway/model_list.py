"""The entries of `/v1/models`: ensembles and models with their options for clients."""

from cappella.config import AnyModel, Config, Ensemble
from cappella.gateway.reply_types import ModelEntry

PREFIX = "cappella/"


def models(config: Config, created: int) -> list[ModelEntry]:
    """The ensembles as `cappella/<name>`, then the models by their own names."""
    ensembles = [_of_ensemble(name, ensemble, created) for name, ensemble in config.ensembles.items()]
    members = [_of_model(name, model, created) for name, model in config.models_by_name.items()]
    return [*ensembles, *members]


def _of_ensemble(name: str, ensemble: Ensemble, created: int) -> ModelEntry:
    entry: ModelEntry = {
        **_entry(PREFIX + name, created, ensemble.tools),
        "panel": [seat.name for seat in ensemble.seats],
        "judge": ensemble.judge.model,
        "example": ensemble.example,
    }
    if ensemble.presets:
        entry["presets"] = list(ensemble.presets)
    return entry


def _of_model(name: str, model: AnyModel, created: int) -> ModelEntry:
    return {**_entry(name, created, model.capabilities.tools), "max_model_len": model.max_model_len}


def _entry(name: str, created: int, takes_tools: bool) -> ModelEntry:
    entry: ModelEntry = {"id": name, "object": "model", "created": created, "owned_by": "cappella"}
    if not takes_tools:
        # Open WebUI sends tools of its own with each message, unless the entry says this.
        entry["info"] = {"meta": {"capabilities": {"builtin_tools": False}}}
    return entry
