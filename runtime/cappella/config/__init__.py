"""What the YAML of one deployment may say, as frozen models; config/load.py reads it."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from cappella.config.ensembles import Ensemble, Judge, Member, Preset, seats
from cappella.config.fields import Name
from cappella.config.models import AnyModel, Model, RemoteModel
from cappella.config.server import Audit, Placement, Runs, Server, Tls, Tracing
from cappella.types import Frozen

__all__ = [
    "AnyModel",
    "Audit",
    "Config",
    "Ensemble",
    "Judge",
    "Member",
    "Model",
    "Placement",
    "Preset",
    "RemoteModel",
    "Runs",
    "Server",
    "Tls",
    "Tracing",
    "seats",
]


class Config(Frozen):
    """One deployment: models, where they lie, the ensembles over them, and the address they are served on."""

    models: Annotated[Mapping[Name, AnyModel], Field(min_length=1)]
    placement: Placement = Placement()
    ensembles: Annotated[Mapping[Name, Ensemble], Field(min_length=1)]
    server: Server = Server()

    @model_validator(mode="after")
    def _names_are_used_once(self) -> "Config":
        names = [name for model in self.models.values() for name in model.adapters] + list(self.models)
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} names two things among the models and their adapters")
        return self

    @property
    def local(self) -> Mapping[str, Model]:
        """The models whose engines we start."""
        return {name: model for name, model in self.models.items() if isinstance(model, Model)}

    @property
    def remote(self) -> Mapping[str, RemoteModel]:
        """The models of servers that are attached."""
        return {name: model for name, model in self.models.items() if isinstance(model, RemoteModel)}

    @property
    def called(self) -> Mapping[str, Model | RemoteModel]:
        """Every name that a seat or a client may call, an adapter's too, and the model that answers."""
        adapters = {adapter: model for model in self.models.values() for adapter in model.adapters}
        return {**self.models, **adapters}

    @property
    def judges(self) -> frozenset[str]:
        """The models that judge, in an ensemble or one of its presets."""
        found: list[Judge | None] = [e.judge for e in self.ensembles.values()]
        found += [preset.judge for e in self.ensembles.values() for preset in e.presets.values()]
        return frozenset(self.host_of[judge.model] for judge in found if judge and judge.model in self.host_of)

    @property
    def host_of(self) -> Mapping[str, str]:
        """The model whose engine answers to each name."""
        return {name: model for model in self.models for name in self.hosted([model])}

    def answering(self, models: Iterable[str]) -> Mapping[str, bool]:
        """Of each ensemble, whether it can answer if these models' engines are up."""
        up = self.hosted(models)
        return {name: ensemble.can_answer(up) for name, ensemble in self.ensembles.items()}

    def hosted(self, models: Iterable[str]) -> list[str]:
        """What these models' engines can be called by."""
        return [name for model in models for name in (model, *self.models[model].adapters)]
