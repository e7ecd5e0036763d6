"""Reads a config from YAML and checks it. Every error has the file, line, key and a hint."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from cappella.config import (
    Config,
    Ensemble,
    Judge,
    Member,
    Model,
    Placement,
    Preset,
    RemoteModel,
    Server,
    Tls,
    cards,
    cluster,
    document_folders,
    tool_places,
    tool_seats,
    weights,
    yaml_source,
)
from cappella.config.abilities import cannot_write, judge_lacks, seat_lacks
from cappella.config.yaml_source import Path_
from cappella.errors import ConfigError, raise_all
from cappella.vocabulary import TASKS


def load(path: Path) -> Config:
    """Read and check a config. Paths in it are relative to the file. Raises ConfigError, Mistakes for several."""
    return load_with_lines(path)[0]


def load_with_lines(path: Path) -> tuple[Config, yaml.Node | None]:
    """The config, and the nodes of its file, which have line numbers. Raises ConfigError."""
    root, config = yaml_source.load(
        path, Config, "Give the path of a YAML config file, or write one with `cappella init`"
    )
    config = _with_cards(_resolve_paths(config, path.parent.resolve()))
    checks = (
        _check_models,
        _check_servers,
        _check_thinking,
        _check_remote_addresses,
        _check_collector_address,
        tool_places.check,
        _check_aliases,
        document_folders.check,
        cluster.check,
        tool_seats.check,
    )
    raise_all([error for check in checks for error in check(path, root, config)])
    return config, root


def with_server(config: Config, **given: object) -> Config:
    """The config with these fields of `server` replaced, unless None, and validated. Raises ConfigError."""
    overrides = {key: value for key, value in given.items() if value is not None}
    if not overrides:
        return config
    try:
        current = {key: getattr(config.server, key) for key in Server.model_fields}
        server = Server.model_validate({**current, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        # Errors of the whole `server` section have no place; among these options only the host causes them.
        option = str(first["loc"][0]) if first["loc"] else "host"
        raise ConfigError(
            f"--{option} {overrides.get(option)}", yaml_source.message(first), "Change the value"
        ) from error
    return config.model_copy(update={"server": server})


def _resolve_paths(config: Config, folder: Path) -> Config:
    models = {name: _model_with_paths(model, folder) for name, model in config.models.items()}
    server = config.server
    paths = {
        key: value and folder / value.expanduser()
        for key, value in (("log_dir", server.log_dir), ("keys", server.keys), ("image_folder", server.image_folder))
    }
    files = {
        key: value and value.model_copy(update={"file": folder / value.file.expanduser()})
        for key, value in (("audit", server.audit), ("runs", server.runs))
    }
    tools = {name: tool_places.with_paths(tool, folder) for name, tool in config.tools.items()}
    batch = server.batch and server.batch.model_copy(update={"folder": folder / server.batch.folder.expanduser()})
    tls = server.tls and Tls(**{key: path and folder / path.expanduser() for key, path in dict(server.tls).items()})
    documents = {name: document_folders.with_paths(each, folder) for name, each in config.documents.items()}
    resolved = server.model_copy(update={**paths, **files, "batch": batch, "tls": tls})
    parts = {"models": models, "tools": tools, "documents": documents, "server": resolved}
    return config.model_copy(update={**parts, "placement": _placement_with_paths(config.placement, folder)})


def _placement_with_paths(placement: Placement, folder: Path) -> Placement:
    if placement.ray is None or placement.ray.token_file is None:
        return placement
    ray = placement.ray.model_copy(update={"token_file": folder / placement.ray.token_file.expanduser()})
    return placement.model_copy(update={"ray": ray})


def _model_with_paths(model: Model | RemoteModel, folder: Path) -> Model | RemoteModel:
    if isinstance(model, RemoteModel):
        return model.model_copy(update={"key_file": model.key_file and folder / model.key_file.expanduser()})
    adapters = {each: folder / path.expanduser() for each, path in model.adapters.items()}
    name = weights.named_by(model.weights)
    card = model.card or (cards.shipped(name.hub_id) if name and "card" not in model.model_fields_set else None)
    return model.model_copy(update={"adapters": adapters, "card": card})


def _with_cards(config: Config) -> Config:
    """The config with defaults from the models' cards: parsers, images, and sampling of the seats."""
    writers = {name: model for name, model in config.local.items() if model.capabilities.writes}
    by_model = {name: cards.load(model.card) for name, model in writers.items() if model.card}
    models = dict(config.models)
    for name, card in by_model.items():
        published = {"tool_parser": card.tool_parser, "reasoning_parser": card.reasoning_parser, "images": card.images}
        unset = {key: value for key, value in published.items() if key not in models[name].model_fields_set}
        models[name] = models[name].model_copy(update=unset)
    by_name = {name: by_model[model] for name, model in config.host_of.items() if model in by_model}
    ensembles = {name: _with_card_sampling(ensemble, by_name) for name, ensemble in config.ensembles.items()}
    return config.model_copy(update={"models": models, "ensembles": ensembles})


def _with_card_sampling(ensemble: Ensemble, by_name: Mapping[str, cards.Card]) -> Ensemble:
    presets = {
        name: preset.model_copy(update={"panel": _seats_with_card_sampling(preset.panel, by_name)})
        if preset.panel
        else preset
        for name, preset in ensemble.presets.items()
    }
    return ensemble.model_copy(update={"panel": _seats_with_card_sampling(ensemble.panel, by_name), "presets": presets})


def _seats_with_card_sampling(panel: Sequence[Member], by_name: Mapping[str, cards.Card]) -> tuple[Member, ...]:
    out = []
    for seat in panel:
        card = by_name.get(seat.model)
        sampling = card.sampling.model_dump(exclude_none=True) if card else {}
        unset = {key: value for key, value in sampling.items() if getattr(seat, key) is None}
        out.append(seat.model_copy(update=unset))
    return tuple(out)


def _check_models(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    for name, ensemble in config.ensembles.items():
        gate: list[tuple[Path_, str]] = [(("gate",), ensemble.gate.model)] if ensemble.gate else []
        for part, model in [*ensemble.models, *gate]:
            at = yaml_source.place(path, root, ("ensembles", name, *part))
            if model not in config.models_by_name:
                available = ", ".join(config.models_by_name)
                yield ConfigError(at, f"there is no model {model!r} under models", f"Use one of {available}")
                continue
            capabilities = config.models_by_name[model].capabilities
            if part[-1] != "judge" and (lack := cannot_write(capabilities)):
                yield ConfigError(at, f"{model} cannot have this place: {lack[0]}", lack[1])
            elif ensemble.tools and not capabilities.writes:
                problem = f"the ensemble has tools: true, and {model} cannot judge calls of tools: it has a task"
                yield ConfigError(at, problem, "Use a judge that writes, or remove tools: true")
            elif ensemble.tools and not capabilities.tools and part != ("gate",):
                key = "tools" if model in config.remote else "tool_parser"
                problem = f"the ensemble has tools: true, and {model} has no {key}"
                yield ConfigError(at, problem, f"Set models.{model}.{key}, or remove tools: true")
        yield from _check_reward(path, root, config, name)
        yield from _check_embedder(path, root, config, name)
        for number, seat in enumerate(ensemble.seats):
            if seat.samples > 1 and seat.sampling.temperature == 0:
                at = yaml_source.place(path, root, ("ensembles", name, "panel", number))
                problem = f"{seat.samples} samples at temperature 0 would be identical"
                yield ConfigError(at, problem, "Raise the temperature, or set samples: 1 on this seat")


def _check_reward(path: Path, root: yaml.Node | None, config: Config, name: str) -> Iterator[ConfigError]:
    """Reward models of `select` that score no answers, and those that are missing."""
    ensemble = config.ensembles[name]
    parts: list[tuple[Path_, Ensemble | Preset]] = [((), ensemble)]
    parts += [(("presets", each), preset) for each, preset in ensemble.presets.items()]
    for where, part in parts:
        reward = part.select.reward
        model = config.models_by_name.get(reward) if reward else None
        if model is None and reward is None and "reward" not in part.select.by:
            continue
        if model is None or not TASKS[model.capabilities.task].scores_answers:
            at = yaml_source.place(path, root, ("ensembles", name, *where, "select"))
            scorers = ", ".join(
                each for each, other in config.models_by_name.items() if TASKS[other.capabilities.task].scores_answers
            )
            hint = f"Use one of {scorers}" if scorers else "Add a model with task: reward or rerank"
            yield ConfigError(at, f"reward names {reward!r}, which scores no answers", hint)


def _check_embedder(path: Path, root: yaml.Node | None, config: Config, name: str) -> Iterator[ConfigError]:
    """Models of an `agreement` that embed nothing, and those that are missing."""
    ensemble = config.ensembles[name]
    parts: list[tuple[Path_, Ensemble | Preset]] = [((), ensemble)]
    parts += [(("presets", each), preset) for each, preset in ensemble.presets.items()]
    for where, part in parts:
        model = config.models_by_name.get(part.agreement.model or "")
        if part.agreement.by != "embedding" and part.agreement.model is None:
            continue
        if model is None or model.capabilities.task != "embed":
            at = yaml_source.place(path, root, ("ensembles", name, *where, "agreement"))
            able = [each for each, other in config.models_by_name.items() if other.capabilities.task == "embed"]
            hint = f"Use one of {', '.join(able)}" if able else "Add a model with task: embed"
            yield ConfigError(at, f"agreement names {part.agreement.model!r}, which embeds nothing", hint)


def _check_thinking(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """Budgets for the thinking of models that do not think."""
    for name, ensemble in config.ensembles.items():
        for number, seat in enumerate(ensemble.panel):
            yield from _of_budget(path, root, config, ("ensembles", name, "panel", number), seat)
        for judge in ensemble.judge.in_order:
            yield from _of_budget(path, root, config, ("ensembles", name, "judge"), judge)


def _of_budget(
    path: Path, root: yaml.Node | None, config: Config, where: Path_, seat: Member | Judge
) -> Iterator[ConfigError]:
    model = config.models_by_name.get(seat.model)
    if seat.thinking_token_budget is None or model is None or model.capabilities.reasoning:
        return
    key = "reasoning: true" if seat.model in config.remote else "reasoning_parser"
    at = yaml_source.place(path, root, (*where, "thinking_token_budget"))
    yield ConfigError(at, f"{seat.model} has no {key}, so it has no thinking to limit", f"Set it on the model: {key}")


def _check_servers(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """Judges and seats whose remote servers cannot do what they need."""
    for name, ensemble in config.ensembles.items():
        parts: list[tuple[Path_, Ensemble | Preset]] = [((), ensemble)]
        parts += [(("presets", each), preset) for each, preset in ensemble.presets.items()]
        for where, part in parts:
            for judge in (part.judge or ensemble.judge).in_order:
                yield from _check_judge(path, root, config, (name, *where), judge)
            seats = ensemble.seats_of(part) if part.panel else ()
            for number, seat in enumerate(seats):
                if seat.model not in config.models_by_name:
                    continue
                if lack := seat_lacks(config.models_by_name[seat.model].capabilities, seat.sampling, seat.samples):
                    at = yaml_source.place(path, root, ("ensembles", name, *where, "panel", number))
                    yield ConfigError(at, f"{seat.model} cannot have this seat: {lack[0]}", lack[1])


def _check_judge(
    path: Path, root: yaml.Node | None, config: Config, where: Path_, judge: Judge
) -> Iterator[ConfigError]:
    """Whether its server can do what the ensemble, or its preset, needs of it."""
    ensemble = config.ensembles[str(where[0])]
    part: Ensemble | Preset = ensemble.presets[str(where[-1])] if len(where) > 1 else ensemble
    if judge.model not in config.models_by_name:
        return
    capabilities = config.models_by_name[judge.model].capabilities
    own_gate = part.gate if isinstance(part, Preset) else None
    gate = own_gate or (ensemble.gate.mode if ensemble.gate else None)
    lack = judge_lacks(capabilities, ensemble.options_of(part), gate) or seat_lacks(capabilities, judge.sampling)
    if lack:
        at = yaml_source.place(path, root, ("ensembles", *where, "judge"))
        yield ConfigError(at, f"{judge.model} cannot judge here: {lack[0]}", lack[1])
    if judge.criteria and not capabilities.writes:
        at = yaml_source.place(path, root, ("ensembles", *where, "judge", "criteria"))
        problem = f"{judge.model} scores answers as it was trained to, by no other criteria"
        yield ConfigError(at, problem, "Remove criteria")


def _check_remote_addresses(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    for name, model in config.remote.items():
        for number, url in enumerate(model.urls):
            host, where = urlsplit(url).hostname or "", ("models", name, "url", number)
            if not config.server.may_connect_to(host):
                at = yaml_source.place(path, root, where if len(model.urls) > 1 else where[:-1])
                hint = f"Use a server on this machine, or add the IP address of {host} to server.may_reach"
                yield ConfigError(at, f"{host} is neither on this machine nor in server.may_reach", hint)


def _check_collector_address(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    tracing = config.server.tracing
    if tracing and tracing.host is not None and not config.server.may_connect_to(tracing.host):
        at = yaml_source.place(path, root, ("server", "tracing", "endpoint"))
        hint = f"Use a collector on this machine, or add the IP address of {tracing.host} to server.may_reach"
        yield ConfigError(at, f"{tracing.host} is neither on this machine nor in server.may_reach", hint)


def _check_aliases(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """Aliases of nothing, and those that hide a model or an ensemble."""
    ensembles = [f"cappella/{name}" for name in config.ensembles]
    callable_ = [*config.models_by_name, *ensembles]
    for alias, target in config.server.aliases.items():
        at = yaml_source.place(path, root, ("server", "aliases", alias))
        if alias in callable_ or alias.startswith("cappella/"):
            yield ConfigError(at, f"{alias!r} is the name of a model or ensemble, or looks like one", "Choose another")
        elif config.meant_by(alias) not in callable_:
            hint = f"Use one of {', '.join([*config.ensembles, *config.models_by_name])}"
            yield ConfigError(at, f"there is no ensemble or model {target!r}", hint)
