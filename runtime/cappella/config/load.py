"""Reads the YAML of one deployment. Every error names the file, the line, the key and a hint."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from cappella.config import Config, Ensemble, Member, Model, Preset, RemoteModel, Server, Tls, cards, yaml_source
from cappella.config.abilities import judge_lacks, seat_lacks
from cappella.config.yaml_source import Path_
from cappella.errors import ConfigError


def load(path: Path) -> Config:
    """Read and check a config. Paths in it are relative to the file. Raises ConfigError."""
    root, config = yaml_source.load(path, Config, "Give the path of a YAML config file")
    config = _with_cards(_resolve_paths(config, path.parent.resolve()))
    _refuse_what_models_lack(path, root, config)
    _refuse_what_servers_lack(path, root, config)
    _refuse_far_servers(path, root, config)
    _refuse_a_far_collector(path, root, config)
    return config


def with_server(config: Config, **given: object) -> Config:
    """The config with these fields of `server`, None apart, checked as the file's are. Raises ConfigError."""
    overrides = {key: value for key, value in given.items() if value is not None}
    if not overrides:
        return config
    try:
        said = {key: getattr(config.server, key) for key in Server.model_fields}
        server = Server.model_validate({**said, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        # Problems of the whole `server` section have no place; of these options only the host can cause them.
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
    kept = {
        key: value and value.model_copy(update={"file": folder / value.file.expanduser()})
        for key, value in (("audit", server.audit), ("runs", server.runs))
    }
    tls = server.tls and Tls(**{key: path and folder / path.expanduser() for key, path in dict(server.tls).items()})
    return config.model_copy(
        update={"models": models, "server": server.model_copy(update={**paths, **kept, "tls": tls})}
    )


def _model_with_paths(model: Model | RemoteModel, folder: Path) -> Model | RemoteModel:
    if isinstance(model, RemoteModel):
        return model.model_copy(update={"key_file": model.key_file and folder / model.key_file.expanduser()})
    paths = {
        "weights": folder / model.weights.expanduser(),
        "card": model.card and folder / model.card.expanduser(),
        "adapters": {each: folder / path.expanduser() for each, path in model.adapters.items()},
    }
    return model.model_copy(update=paths)


def _with_cards(config: Config) -> Config:
    """The config completed from the models' cards: parsers, images, and sampling of the seats."""
    known = {name: cards.load(model.card) for name, model in config.local.items() if model.card}
    models = dict(config.models)
    for name, card in known.items():
        said = {"tool_parser": card.tool_parser, "reasoning_parser": card.reasoning_parser, "images": card.images}
        left = {key: value for key, value in said.items() if key not in models[name].model_fields_set}
        models[name] = models[name].model_copy(update=left)
    by_seat = {name: known[model] for name, model in config.host_of.items() if model in known}
    ensembles = {name: _sampled(ensemble, by_seat) for name, ensemble in config.ensembles.items()}
    return config.model_copy(update={"models": models, "ensembles": ensembles})


def _sampled(ensemble: Ensemble, known: Mapping[str, cards.Card]) -> Ensemble:
    presets = {
        name: preset.model_copy(update={"panel": _seats_sampled(preset.panel, known)}) if preset.panel else preset
        for name, preset in ensemble.presets.items()
    }
    return ensemble.model_copy(update={"panel": _seats_sampled(ensemble.panel, known), "presets": presets})


def _seats_sampled(panel: Sequence[Member], known: Mapping[str, cards.Card]) -> tuple[Member, ...]:
    out = []
    for seat in panel:
        said = known[seat.model].sampling.model_dump(exclude_none=True) if seat.model in known else {}
        out.append(seat.model_copy(update={key: value for key, value in said.items() if getattr(seat, key) is None}))
    return tuple(out)


def _refuse_what_models_lack(path: Path, root: yaml.Node | None, config: Config) -> None:
    for name, ensemble in config.ensembles.items():
        gate: list[tuple[Path_, str]] = [(("gate",), ensemble.gate.model)] if ensemble.gate else []
        for part, model in [*ensemble.models, *gate]:
            at = yaml_source.place(path, root, ("ensembles", name, *part))
            if model not in config.called:
                known = ", ".join(config.called)
                raise ConfigError(at, f"there is no model {model!r} under models", f"Use one of {known}")
            if ensemble.tools and not config.called[model].capabilities.tools and part != ("gate",):
                key = "tools" if model in config.remote else "tool_parser"
                problem = f"the ensemble takes tools, and {model} has no {key}"
                raise ConfigError(at, problem, f"Set models.{model}.{key}, or take tools: true out")
        for number, seat in enumerate(ensemble.seats):
            if seat.samples > 1 and seat.sampling.temperature == 0:
                at = yaml_source.place(path, root, ("ensembles", name, "panel", number))
                problem = f"{seat.samples} samples at temperature 0 would be identical"
                raise ConfigError(at, problem, "Raise the temperature, or set samples: 1 on this seat")


class _Judging:
    """What a preset says of how its judge works, and below it its ensemble."""

    def __init__(self, part: Ensemble | Preset, ensemble: Ensemble) -> None:
        self.strategy = part.strategy or ensemble.strategy
        self.analysis = part.analysis or ensemble.analysis
        self.early_exit = part.early_exit or ensemble.early_exit


def _refuse_what_servers_lack(path: Path, root: yaml.Node | None, config: Config) -> None:
    """What judges and seats are needed for and their remote servers cannot do."""
    for name, ensemble in config.ensembles.items():
        parts: list[tuple[Path_, Ensemble | Preset]] = [((), ensemble)]
        parts += [(("presets", each), preset) for each, preset in ensemble.presets.items()]
        for where, part in parts:
            judge = part.judge or ensemble.judge
            capabilities = config.called[judge.model].capabilities
            own_gate = part.gate if isinstance(part, Preset) else None
            gate = own_gate or (ensemble.gate.mode if ensemble.gate else None)
            lack = judge_lacks(capabilities, _Judging(part, ensemble), gate) or seat_lacks(capabilities, judge.sampling)
            if lack:
                at = yaml_source.place(path, root, ("ensembles", name, *where, "judge"))
                raise ConfigError(at, f"{judge.model} cannot judge here: {lack[0]}", lack[1])
            for number, seat in enumerate(ensemble.seats_of(part)):
                if lack := seat_lacks(config.called[seat.model].capabilities, seat.sampling, seat.samples):
                    at = yaml_source.place(path, root, ("ensembles", name, *where, "panel", number))
                    raise ConfigError(at, f"{seat.model} cannot sit so: {lack[0]}", lack[1])


def _refuse_far_servers(path: Path, root: yaml.Node | None, config: Config) -> None:
    for name, model in config.remote.items():
        if not config.server.may_connect_to(model.host):
            at = yaml_source.place(path, root, ("models", name, "url"))
            hint = f"Use a server on this machine, or put {model.host}, as an address, into server.may_reach"
            raise ConfigError(at, f"{model.host} is not on this machine, and our processes may not reach it", hint)


def _refuse_a_far_collector(path: Path, root: yaml.Node | None, config: Config) -> None:
    tracing = config.server.tracing
    if tracing and tracing.host is not None and not config.server.may_connect_to(tracing.host):
        at = yaml_source.place(path, root, ("server", "tracing", "endpoint"))
        hint = f"Use a collector on this machine, or put {tracing.host}, as an address, into server.may_reach"
        raise ConfigError(at, f"{tracing.host} is not on this machine, and our processes may not reach it", hint)
