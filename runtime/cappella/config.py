"""The YAML of one deployment, as frozen models. Every error names the file, the line, the key and the mend."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError, model_validator

from cappella.errors import ConfigError
from cappella.types import AnalysisMode, Sampling, Seat

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Path_ = tuple[str | int, ...]

# Set by Cappella itself, or able to open the seal: never taken from a config.
RESERVED_ENGINE_ARGS = frozenset(
    "model served_model_name uds host port api_key trust_remote_code load_format max_model_len max_num_seqs dtype"
    " kv_cache_memory_bytes otlp_traces_endpoint allowed_local_media_path allowed_media_domains".split()
)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Frozen):
    """One set of weights and how its engine serves it."""

    weights: Path
    max_model_len: Annotated[int, Field(ge=16)]
    kv_cache_bytes: Annotated[ByteSize, Field(ge=1 << 20)]
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    dtype: str = "auto"
    enforce_eager: bool = False
    cpu_threads: Annotated[int, Field(ge=1)] | None = None
    engine_args: Mapping[str, bool | int | float | str | Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _no_reserved_engine_args(self) -> "Model":
        for name in self.engine_args:
            if name.replace("-", "_") in RESERVED_ENGINE_ARGS:
                raise ValueError(f"engine_args may not set {name!r}: Cappella sets it or keeps it off")
        return self


class SamplingConfig(Frozen):
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def sampling(self) -> Sampling:
        fields = set(Sampling.__slots__) & set(type(self).model_fields)
        return Sampling(**{name: getattr(self, name) for name in fields})


class Member(SamplingConfig):
    """A seat on the panel: a model, and how it samples there."""

    model: Name


class Judge(SamplingConfig):
    """The model that compares and writes. `criteria` are words it is told to weigh first."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    criteria: str | None = None
    analysis_max_tokens: Annotated[int, Field(ge=16)] = 1024


def _named(model: type[BaseModel]) -> BeforeValidator:
    """A bare model name stands for an entry with nothing else set."""
    return BeforeValidator(lambda value: {"model": value} if isinstance(value, str) else value)


class Ensemble(Frozen):
    """A panel, a judge and how they work together: what a client calls as `cappella/<name>`.

    `example` is a question worth trying; `serve` prints it.
    """

    panel: Annotated[tuple[Annotated[Member, _named(Member)], ...], Field(min_length=1, max_length=8)]
    judge: Annotated[Judge, _named(Judge)]
    analysis: AnalysisMode = "before"
    quorum: Annotated[int, Field(ge=1, le=8)] | None = None
    round_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    deadline_s: Annotated[float, Field(gt=0)] = 300.0
    allow_overrides: bool = True
    example: str = "Say hello."

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Ensemble":
        if self.quorum is not None and self.quorum > len(self.panel):
            raise ValueError(f"quorum {self.quorum} is larger than the panel of {len(self.panel)}")
        return self

    @property
    def seats(self) -> tuple[Seat, ...]:
        return seats((member.model, member.sampling) for member in self.panel)

    def quorum_of(self, panel_size: int) -> int:
        """How many answers are enough from a panel of this size."""
        return min(self.quorum or 2, panel_size)


class Server(Frozen):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: ByteSize = ByteSize(4 << 20)
    log_dir: Path | None = None

    @model_validator(mode="after")
    def _loopback(self) -> "Server":
        if self.host != "localhost" and not ip_address(self.host).is_loopback:
            raise ValueError(f"host {self.host!r} is not a loopback address, and there are no keys yet to guard it")
        return self


class Config(Frozen):
    """One deployment: models, the ensembles over them, and the address they are served on."""

    models: Annotated[Mapping[Name, Model], Field(min_length=1)]
    ensembles: Annotated[Mapping[Name, Ensemble], Field(min_length=1)]
    server: Server = Server()


def seats(models: Iterator[tuple[str, Sampling]]) -> tuple[Seat, ...]:
    """Seats named after their models; a model's second seat is `name#2`, and so on."""
    counts: dict[str, int] = {}
    out = []
    for model, sampling in models:
        counts[model] = counts.get(model, 0) + 1
        name = model if counts[model] == 1 else f"{model}#{counts[model]}"
        out.append(Seat(name, model, sampling))
    return tuple(out)


def load(path: Path) -> Config:
    """Read and check a config. Paths in it are relative to the file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Give the path of a YAML config file") from error
    try:
        root = yaml.compose(text)
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(place, f"is not valid YAML ({problem})", "Mend the line") from error
    _refuse_duplicates(path, root)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise _config_error(path, root, error) from error
    _refuse_unknown_models(path, root, config)
    return _resolve_paths(config, path.parent.resolve())


def _resolve_paths(config: Config, folder: Path) -> Config:
    models = {
        name: model.model_copy(update={"weights": folder / model.weights.expanduser()})
        for name, model in config.models.items()
    }
    log_dir = config.server.log_dir and folder / config.server.log_dir.expanduser()
    return config.model_copy(update={"models": models, "server": config.server.model_copy(update={"log_dir": log_dir})})


def _refuse_duplicates(path: Path, node: yaml.Node | None, above: tuple[yaml.Node, ...] = ()) -> None:
    """PyYAML keeps the last of two equal keys and says nothing; here that is an error. So is an alias to itself."""
    if node in above:
        place = f"{path}:{above[-1].start_mark.line + 1}"
        raise ConfigError(place, "an alias stands inside what it stands for", "Write it out")
    above = (*above, *([node] if node else []))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                place = f"{path}:{key.start_mark.line + 1}: {key.value}"
                raise ConfigError(place, "this key stands twice", "Remove one of them")
            seen.add(key.value)
            _refuse_duplicates(path, value, above)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item, above)


def _refuse_unknown_models(path: Path, root: yaml.Node | None, config: Config) -> None:
    for name, ensemble in config.ensembles.items():
        used: list[tuple[Path_, str]] = [(("panel", seat), member.model) for seat, member in enumerate(ensemble.panel)]
        for where, model in [*used, (("judge",), ensemble.judge.model)]:
            if model not in config.models:
                where = ("ensembles", name, *where)
                place = f"{path}:{_line(root, where)}: {_dotted(where)}"
                known = ", ".join(config.models)
                raise ConfigError(place, f"there is no model {model!r} under models", f"Use one of {known}")


def _config_error(path: Path, root: yaml.Node | None, error: ValidationError) -> ConfigError:
    """The first problem, since the others often follow from it."""
    # A misspelt key is reported twice, as unknown and as missing: the first says more.
    first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    where: Path_ = first["loc"]
    place = f"{path}:{_line(root, where)}: {_dotted(where)}"
    match first["type"]:
        case "extra_forbidden":
            return ConfigError(place, "unknown key", _suggest(where))
        case "missing":
            return ConfigError(place, "this key is missing", f"Add {where[-1]}")
        case _:
            problem = first["msg"].removeprefix("Value error, ")
            return ConfigError(place, problem[0].lower() + problem[1:], "Change the value")


def _dotted(where: Path_) -> str:
    return ".".join(str(part) for part in where) or "the file"


def _line(node: yaml.Node | None, where: Path_) -> int:
    """The line of the deepest part of `where` that stands in the file."""
    line = node.start_mark.line + 1 if node else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _suggest(where: Path_) -> str:
    known = sorted(_keys_at(Config, where[:-1]))
    close = get_close_matches(str(where[-1]), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known keys here: {', '.join(known)}"


def _keys_at(model: Any, where: Path_) -> set[str]:
    """The keys that the schema allows at `where`; a step into a mapping or a list is any name or number."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not where:
            return set(model.model_fields)
        field = model.model_fields.get(str(where[0]))
        return _keys_at(field.annotation, where[1:]) if field else set()
    inner = [arg for arg in get_args(model) if arg is not Ellipsis]
    if not inner:
        return set()
    is_annotated = hasattr(model, "__metadata__")
    return _keys_at(inner[0] if is_annotated else inner[-1], where if is_annotated else where[1:])
