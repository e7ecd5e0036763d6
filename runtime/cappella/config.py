"""What the YAML of one deployment may say, as frozen models; reading.py reads it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, IPvAnyAddress, model_validator

from cappella.options import AnalysisMode, AnswerOrder, EarlyExit, GateMode, Options, Seat, Strategy
from cappella.places import Path_
from cappella.types import Sampling, Traits

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Quorum = Annotated[int, Field(ge=1, le=64)]
Samples = Annotated[int, Field(ge=1, le=16)]
Layers = Annotated[int, Field(ge=1, le=4)]
Seconds = Annotated[float, Field(gt=0)]

# Set by Cappella itself, or able to open the seal: never taken from a config.
RESERVED_ENGINE_ARGS = frozenset(
    "model served_model_name uds host port api_key trust_remote_code load_format max_model_len max_num_seqs dtype"
    " kv_cache_memory_bytes kv_cache_dtype tensor_parallel_size pipeline_parallel_size data_parallel_size"
    " gpu_memory_utilization otlp_traces_endpoint allowed_local_media_path allowed_media_domains"
    " enable_lora lora_modules max_loras max_lora_rank enable_auto_tool_choice tool_call_parser reasoning_parser tool_parser_plugin".split()
)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Frozen):
    """One set of weights and how its engine serves it.

    The parsers are vLLM's, by name: a model takes tools, or an effort to reason with, only if it has the parser. With
    `prompt_lookup_tokens` it guesses so many tokens ahead, by what followed the same words before: a judge copies much.
    What is None is the plan's to choose. `card` is a file of model_configs/models: what is known of these weights.
    `adapters` are LoRA adapters by name, each called as a model of its own: one engine serves them with its weights.
    """

    weights: Path
    card: Path | None = None
    max_model_len: Annotated[int, Field(ge=16)]
    kv_cache_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    tensor_parallel_size: Literal[1, 2, 4, 8, 16] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    dtype: str = "auto"
    enforce_eager: bool = False
    cpu_threads: Annotated[int, Field(ge=1)] | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    images: bool = False
    prompt_lookup_tokens: Annotated[int, Field(ge=1, le=32)] | None = None
    adapters: Mapping[Name, Path] = {}
    engine_args: Mapping[str, bool | int | float | str | Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _no_reserved_engine_args(self) -> "Model":
        if self.gpus and len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"gpus names one twice: {', '.join(map(str, self.gpus))}")
        if self.gpus and self.tensor_parallel_size not in (None, len(self.gpus)):
            raise ValueError(f"gpus names {len(self.gpus)} and tensor_parallel_size {self.tensor_parallel_size}")
        for name in self.engine_args:
            if name.replace("-", "_") in RESERVED_ENGINE_ARGS:
                raise ValueError(f"engine_args may not set {name!r}: Cappella sets it or keeps it off")
            if name.replace("-", "_") == "speculative_config" and self.prompt_lookup_tokens is not None:
                raise ValueError("prompt_lookup_tokens and speculative_config say the same thing: set one of them")
        return self

    @property
    def traits(self) -> Traits:
        return Traits(
            tools=self.tool_parser is not None, images=self.images, reasoning=self.reasoning_parser is not None
        )


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
    """A seat on the panel: a model, how it samples there, and what it is told before the conversation."""

    model: Name
    system: str | None = None
    samples: Samples | None = None


class Judge(SamplingConfig):
    """The model that compares and writes."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    criteria: str | None = None
    analysis_max_tokens: Annotated[int, Field(ge=16)] = 1024


def _named(model: type[BaseModel]) -> BeforeValidator:
    """A bare model name stands for an entry with nothing else set."""
    return BeforeValidator(lambda value: {"model": value} if isinstance(value, str) else value)


Seats = Annotated[tuple[Annotated[Member, _named(Member)], ...], Field(min_length=1, max_length=8)]


class OptionsConfig(Frozen):
    """What an ensemble, and each of its presets, may set; see `types.Options`."""

    strategy: Strategy | None = None
    analysis: AnalysisMode | None = None
    quorum: Quorum | None = None
    grace_s: Annotated[float, Field(ge=0)] | None = None
    samples: Samples | None = None
    layers: Layers | None = None
    review: bool | None = None
    early_exit: EarlyExit | None = None
    debias: bool | None = None
    show_reasoning: bool | None = None
    formatted_panel: bool | None = None
    answer_order: AnswerOrder | None = None
    early_prefill: bool | None = None
    max_total_tokens: Annotated[int, Field(ge=1)] | None = None
    round_timeout_s: Seconds | None = None
    deadline_s: Seconds | None = None

    @property
    def options(self) -> Options:
        fields = set(Options.__slots__) & set(OptionsConfig.model_fields)
        return Options(**{name: getattr(self, name) for name in fields})


class GateConfig(Frozen):
    """Requests that need no panel go to `model` alone: by `rules` (short, one turn, plain text), or as the judge says.

    With mode `off` only a preset or a request turns it on.
    """

    mode: GateMode
    model: Name
    max_words: Annotated[int, Field(ge=1)] = 4


class Preset(OptionsConfig):
    """A named departure from its ensemble, chosen by a request's `preset`."""

    panel: Seats | None = None
    judge: Annotated[Judge, _named(Judge)] | None = None
    gate: GateMode | None = None


class Ensemble(OptionsConfig):
    """A panel, a judge and how they work together: what a client calls as `cappella/<name>`.

    `example` is a question worth trying; `serve` prints it.
    """

    panel: Seats
    judge: Annotated[Judge, _named(Judge)]
    gate: GateConfig | None = None
    tools: bool = False
    presets: Mapping[Name, Preset] = {}
    allow_overrides: bool = True
    example: str = "Say hello."

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Ensemble":
        parts: list[Preset | Ensemble] = [self, *self.presets.values()]
        for preset in parts:
            quorum, size = preset.quorum, sum(seat.samples for seat in self.seats_of(preset))
            if quorum is not None and quorum > size:
                raise ValueError(f"quorum {quorum} is larger than the panel of {size}")
        return self

    @property
    def seats(self) -> tuple[Seat, ...]:
        return self.seats_of(self)

    def seats_of(self, preset: "Preset | Ensemble") -> tuple[Seat, ...]:
        """The panel of a preset: its own, or the ensemble's."""
        members = preset.panel or self.panel
        samples = preset.samples or self.samples or 1
        return seats((m.model, m.sampling, m.system, m.samples or samples) for m in members)

    @property
    def models(self) -> Iterator[tuple[Path_, str]]:
        """Every model that is named here, and where."""
        parts: list[tuple[Path_, Preset | Ensemble]] = [((), self)]
        parts += [(("presets", name), preset) for name, preset in self.presets.items()]
        for where, part in parts:
            yield from (((*where, "panel", seat), member.model) for seat, member in enumerate(part.panel or ()))
            if part.judge:
                yield (*where, "judge"), part.judge.model

    def quorum_of(self, answers: int) -> int:
        """How many answers are enough where this many can come."""
        return min(self.quorum or 2, answers)

    def can_answer(self, up: Sequence[str]) -> bool:
        """Whether its quorum and its judge are among the models that are up."""
        able = sum(seat.samples for seat in self.seats if seat.model in up)
        return self.judge.model in up and able >= self.quorum_of(sum(seat.samples for seat in self.seats))


class Tls(Frozen):
    """PEM files. With `client_ca` only clients with a certificate that it signed are served."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


class Server(Frozen):
    """Where clients are listened to. Of the runs of an ensemble, and of the calls of a model, `max_waiting` may queue.

    A client that for `client_timeout_s` neither sends the rest of its body nor takes what is sent to it is left.
    `keys` is a file of keys (see `cappella keys`); without one everybody who reaches the port may do everything.
    Our processes connect to loopback and to the addresses in `may_reach`, and to nothing else.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body_bytes: ByteSize = ByteSize(4 << 20)
    max_waiting: Annotated[int, Field(ge=1)] = 64
    client_timeout_s: Seconds = 60.0
    log_dir: Path | None = None
    keys: Path | None = None
    may_reach: tuple[IPvAnyAddress, ...] = ()
    tls: Tls | None = None
    allow_open: bool = False

    @model_validator(mode="after")
    def _guarded(self) -> "Server":
        lacks = [name for name, value in (("keys", self.keys), ("tls", self.tls)) if value is None]
        if lacks and not self.allow_open and not self.loopback:
            what = {
                "keys": "anybody who reaches it may use every model",
                "tls": "prompts, answers and keys are readable",
            }
            means = " and ".join(what[name] for name in lacks)
            problem = f"host {self.host!r} is not loopback, and lacks {' and '.join(lacks)}: {means}"
            raise ValueError(f"{problem}. Set them, or allow_open: true if that is meant")
        return self

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or ip_address(self.host).is_loopback


class Placement(Frozen):
    """How models share memory: at most `memory_bytes` of each GPU, or of this machine's memory where there is none.

    With `swap`, a panel that does not fit at once takes turns; judges stay where they are. With `mps`, engines on one
    GPU compute at the same time, under a CUDA Multi-Process Service of their own.
    """

    memory_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    swap: bool = False
    mps: bool = False


class Config(Frozen):
    """One deployment: models, where they lie, the ensembles over them, and the address they are served on."""

    models: Annotated[Mapping[Name, Model], Field(min_length=1)]
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
    def called(self) -> Mapping[str, Model]:
        """Every name that a seat or a client may call, an adapter's too, and the model that answers."""
        adapters = {adapter: model for model in self.models.values() for adapter in model.adapters}
        return {**self.models, **adapters}

    @property
    def judges(self) -> frozenset[str]:
        """The models that judge, in an ensemble or one of its presets."""
        found: list[Judge | None] = [e.judge for e in self.ensembles.values()]
        found += [preset.judge for e in self.ensembles.values() for preset in e.presets.values()]
        return frozenset(self.host_of[judge.model] for judge in found if judge)

    @property
    def host_of(self) -> Mapping[str, str]:
        """The model whose engine answers to each name."""
        return {name: model for model in self.models for name in self.hosted([model])}

    def hosted(self, models: Iterable[str]) -> list[str]:
        """What these models' engines can be called by."""
        return [name for model in models for name in (model, *self.models[model].adapters)]


def seats(wanted: Iterator[tuple[str, Sampling, str | None, int]]) -> tuple[Seat, ...]:
    """Seats named after their models; a model's second seat is `name#2`, and so on."""
    counts: dict[str, int] = {}
    out = []
    for model, sampling, system, samples in wanted:
        counts[model] = counts.get(model, 0) + 1
        name = model if counts[model] == 1 else f"{model}#{counts[model]}"
        out.append(Seat(name, model, sampling, system, samples))
    return tuple(out)
