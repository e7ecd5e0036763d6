"""What `/v1/models` lists: every ensemble and every model, with what a client may ask of it."""

from cappella.config import Config, Ensemble
from cappella.types import Json

PREFIX = "cappella/"


def models(config: Config, created: int) -> list[Json]:
    """Ensembles by `cappella/<name>`, then models by their own names."""
    entry = {"object": "model", "created": created, "owned_by": "cappella"}
    ensembles = [
        {"id": PREFIX + name, **entry, **_about(ensemble), **_tools(ensemble.tools)}
        for name, ensemble in config.ensembles.items()
    ]
    members = [
        {"id": name, **entry, "max_model_len": model.max_model_len, **_tools(model.capabilities.tools)}
        for name, model in config.called.items()
    ]
    return [*ensembles, *members]


def _about(ensemble: Ensemble) -> Json:
    presets = {"presets": list(ensemble.presets)} if ensemble.presets else {}
    cast = {"panel": [seat.name for seat in ensemble.seats], "judge": ensemble.judge.model}
    return {**cast, "example": ensemble.example, **presets}


def _tools(taken: bool) -> Json:
    """For Open WebUI: it sends tools of its own with every message, unless the model's entry says this."""
    return {} if taken else {"info": {"meta": {"capabilities": {"builtin_tools": False}}}}
