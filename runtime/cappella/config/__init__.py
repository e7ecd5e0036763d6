"""The config of one deployment as frozen models; config/load.py reads it from YAML."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from cappella.config.builtin_tools import BuiltinTool
from cappella.config.documents import Documents
from cappella.config.ensembles import Ensemble, Judge, Member, Preset, seats
from cappella.config.fields import Name
from cappella.config.models import AnyModel, Model, RemoteModel, with_adapters
from cappella.config.placement import Placement, Ray
from cappella.config.server import Audit, Batch, Runs, Server, Tls, Tracing
from cappella.config.tools import AnyTool, CommandTool, UrlTool
from cappella.types import Frozen

__all__ = [
    "AnyModel",
    "AnyTool",
    "Audit",
    "Batch",
    "BuiltinTool",
    "CommandTool",
    "Config",
    "Documents",
    "Ensemble",
    "Judge",
    "Member",
    "Model",
    "Placement",
    "Preset",
    "Ray",
    "RemoteModel",
    "Runs",
    "Server",
    "Tls",
    "Tracing",
    "UrlTool",
    "seats",
]


class Config(Frozen):
    """One deployment: its models and their placement, the ensembles, and the server."""

    models: Annotated[Mapping[Name, AnyModel], Field(min_length=1)]
    placement: Placement = Placement()
    tools: Mapping[Name, AnyTool] = {}
    documents: Mapping[Name, Documents] = {}
    ensembles: Annotated[Mapping[Name, Ensemble], Field(min_length=1)]
    server: Server = Server()

    @model_validator(mode="after")
    def _names_are_used_once(self) -> "Config":
        names = [name for model in self.models.values() for name in model.adapters] + list(self.models)
        if duplicates := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{duplicates[0]!r} is used twice among the names of models and adapters")
        replicas = (each for name in self.models for each in self.servers_of([name]) if each != name)
        if taken := next((each for each in replicas if each in names), None):
            raise ValueError(f"{taken!r} is the name of a replica: call the other model or adapter something else")
        return self

    @model_validator(mode="after")
    def _replicas_stay_awake(self) -> "Config":
        several = next((name for name, model in self.local.items() if model.replicas > 1), None)
        if self.placement.swap and several:
            raise ValueError(
                f"placement.swap and replicas exclude each other: {several} would wait for its own replicas"
            )
        return self

    def meant_by(self, name: str) -> str:
        """The model, or `cappella/<ensemble>`, that a client's name means: its own target for an alias, else the name.

        A target that is both a model and an ensemble means the model; `cappella/<name>` means the ensemble.
        """
        target = self.server.aliases.get(name)
        if target is None:
            return name
        return f"cappella/{target}" if target in self.ensembles and target not in self.models_by_name else target

    @property
    def local(self) -> Mapping[str, Model]:
        """The models whose engines Cappella starts."""
        return {name: model for name, model in self.models.items() if isinstance(model, Model)}

    @property
    def remote(self) -> Mapping[str, RemoteModel]:
        """The models on servers that Cappella does not run."""
        return {name: model for name, model in self.models.items() if isinstance(model, RemoteModel)}

    @property
    def models_by_name(self) -> Mapping[str, Model | RemoteModel]:
        """The model behind each callable name: its own name, and those of its adapters."""
        return with_adapters(self.models)

    @property
    def judges(self) -> frozenset[str]:
        """The models that are the judge of an ensemble or of one of its presets, and have room as such in a plan."""
        judges = [each.planned_judge_of(part) for each in self.ensembles.values() for part in each.parts]
        return frozenset(self.host_of[judge.model] for judge in judges if judge and judge.model in self.host_of)

    @property
    def host_of(self) -> Mapping[str, str]:
        """The name of the model whose engine serves each callable name."""
        return {name: model for model in self.models for name in self.names_of([model])}

    def answering(self, models: Iterable[str]) -> Mapping[str, bool]:
        """For each ensemble, whether it can answer when the engines of exactly these models are up."""
        up = self.names_of(models)
        return {name: ensemble.can_answer(up) for name, ensemble in self.ensembles.items()}

    def servers_of(self, models: Iterable[str]) -> list[str]:
        """The names of the servers of these models: NAME, or NAME-1, NAME-2 ... of a model with replicas."""
        return [server for model in models for server in self.models[model].servers(model)]

    @property
    def model_of(self) -> Mapping[str, str]:
        """The model of each server."""
        return {server: name for name in self.models for server in self.servers_of([name])}

    def names_of(self, models: Iterable[str]) -> list[str]:
        """The callable names of these models and their adapters."""
        return [name for model in models for name in (model, *self.models[model].adapters)]
