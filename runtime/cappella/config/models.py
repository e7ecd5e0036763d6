"""Models in a config: weights that Cappella loads, or the URL of a server that runs elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from cappella.config import cards, weights
from cappella.config.engine_args import EngineArg, canonical
from cappella.config.fields import Bytes, Name
from cappella.config.options import Seconds
from cappella.types import Capabilities, Frozen
from cappella.vocabulary import Task

MAX_REPLICAS = 64


def _numbered(name: str, replicas: int) -> tuple[str, ...]:
    """The names of a model's servers: its own for one, NAME-1, NAME-2 ... for several."""
    return (name,) if replicas == 1 else tuple(f"{name}-{number}" for number in range(1, replicas + 1))


def _located(value: object, info: ValidationInfo) -> object:
    """The folder that the text names, in a config that was read from a file."""
    return weights.locate(value, info.context["folder"]) if isinstance(value, str) and info.context else value


def _card(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not info.context:
        return value
    path = weights.below(info.context["folder"], value)
    return path if path.exists() else cards.shipped(value) or path


_OF_REMOTE_WRITERS = ("tools", "images", "reasoning", "json_schema", "logprobs")
_OF_WRITERS = ("tool_parser", "reasoning_parser", "images", "prompt_lookup_tokens", "adapters")


class Model(Frozen):
    """One set of weights and how its engine serves it. The plan chooses what is None.

    The parsers are vLLM's, by name: a model accepts tools, or `reasoning_effort`, only if it has the parser.
    `prompt_lookup_tokens` turns on n-gram speculation with that many draft tokens: useful for judges, which copy much.
    `weights` is a folder, or a hub id that is found in the Hugging Face cache or where `cappella pull` puts it. `card` is a
    file with published facts about them, or the hub id of a card that Cappella has; by default the one of their hub id.
    An engine with pending requests that generates no token and makes no step for `hung_after_s` is restarted, on a CPU
    only if its core does not compute either.
    An engine that no call and no run has used for `sleep_after_s` sleeps, and wakes for the next. A model that `gpus` pins
    never sleeps. `adapters` are LoRA adapters by name. Each is called like a model; one engine serves them with its weights.
    `engine_args` are further flags of vLLM's server: those allowed by config/engine_args.py.
    A model whose `task` is not to generate gives embeddings or scores, and is no member.
    Each of its `replicas` is an engine of its own, with its own place in the plan and its own `max_num_seqs`.
    """

    weights: Annotated[Path, BeforeValidator(_located)]
    card: Annotated[Path, BeforeValidator(_card)] | None = None
    task: Task = "generate"
    max_model_len: Annotated[int, Field(ge=16)] | None = None
    kv_cache_bytes: Annotated[Bytes, Field(ge=1 << 20)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    tensor_parallel_size: Literal[1, 2, 4, 8, 16] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    dtype: str = "auto"
    enforce_eager: bool = False
    hung_after_s: Seconds = 60.0
    sleep_after_s: Seconds | None = None
    cpu_threads: Annotated[int, Field(ge=1)] | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    images: bool = False
    prompt_lookup_tokens: Annotated[int, Field(ge=1, le=32)] | None = None
    adapters: Mapping[Name, Path] = {}
    engine_args: Mapping[EngineArg, bool | int | float | str | Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _gpus_agree(self) -> "Model":
        if self.gpus and len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"gpus has a duplicate: {', '.join(map(str, self.gpus))}")
        if self.gpus and self.tensor_parallel_size not in (None, len(self.gpus)):
            raise ValueError(f"gpus lists {len(self.gpus)}, but tensor_parallel_size is {self.tensor_parallel_size}")
        return self

    @model_validator(mode="after")
    def _pinned_stays_awake(self) -> "Model":
        if self.gpus and self.sleep_after_s is not None:
            raise ValueError("gpus and sleep_after_s exclude each other: a model pinned to GPUs never sleeps")
        return self

    @model_validator(mode="after")
    def _plan_places_replicas(self) -> "Model":
        if self.gpus and self.replicas > 1:
            raise ValueError("gpus and replicas exclude each other: the plan chooses the GPUs of each replica")
        return self

    @model_validator(mode="after")
    def _speculation_is_set_once(self) -> "Model":
        if self.prompt_lookup_tokens is not None and "speculative_config" in map(canonical, self.engine_args):
            raise ValueError("prompt_lookup_tokens and speculative_config exclude each other: set one of them")
        return self

    @model_validator(mode="after")
    def _only_a_writer_has_what_writing_needs(self) -> "Model":
        given = [name for name in _OF_WRITERS if getattr(self, name)]
        if self.task != "generate" and given:
            raise ValueError(f"{given[0]} is for a model that writes, and this one has task: {self.task}")
        return self

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            tools=self.tool_parser is not None,
            images=self.images,
            reasoning=self.reasoning_parser is not None,
            context_tokens=self.max_model_len,
            task=self.task,
        )

    @property
    def max_calls(self) -> int:
        """What all its engines run at once."""
        return self.max_num_seqs * self.replicas

    def servers(self, name: str) -> tuple[str, ...]:
        """The names of its engines, for this name of the model."""
        return _numbered(name, self.replicas)

    @property
    def context_tokens(self) -> int:
        """`max_model_len` of a model that is planned: the plan has chosen it where the config has not."""
        assert self.max_model_len is not None
        return self.max_model_len


class RemoteModel(Frozen):
    """A model on an OpenAI-compatible server that Cappella does not run, at an address that it may reach.

    Several URLs are replicas: servers that are alike, each with the same model under the same name, of which each call uses one.
    `model` is the server's name for it, by default its name here; `key_file` holds the server's API key. With
    `api: openai` the model can do only what is declared here; with `api: vllm` also whatever vLLM's server can.
    A server with pending calls that sends nothing for `hung_after_s` is probed with a one-token request.
    """

    url: str | tuple[str, ...]
    model: str | None = None
    key_file: Path | None = None
    api: Literal["openai", "vllm"] = "openai"
    task: Task = "generate"
    max_model_len: Annotated[int, Field(ge=16)]
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    hung_after_s: Seconds = 60.0
    tools: bool = False
    images: bool = False
    reasoning: bool = False
    json_schema: bool | None = None
    logprobs: bool | None = None

    @field_validator("url", mode="before")
    @classmethod
    def _are_apis(cls, value: object) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return _api_url(value)
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise ValueError("url is the URL of an API, or a list of URLs")
        urls = tuple(map(_api_url, value))
        if not urls:
            raise ValueError("url lists none: give the URL of each server")
        if len(urls) > MAX_REPLICAS:
            raise ValueError(f"url lists {len(urls)} servers: give {MAX_REPLICAS} at most")
        if twice := [url for url in dict.fromkeys(urls) if urls.count(url) > 1]:
            raise ValueError(f"{twice[0]} is listed twice: each replica is a server of its own")
        return urls

    @model_validator(mode="after")
    def _task_suits(self) -> "RemoteModel":
        given = [name for name in _OF_REMOTE_WRITERS if getattr(self, name)]
        if self.task != "generate" and self.api != "vllm":
            raise ValueError(f"task: {self.task} needs api: vllm, whose server has all of its endpoints")
        if self.task != "generate" and given:
            raise ValueError(f"{given[0]} is for a model that writes, and this one has task: {self.task}")
        return self

    @property
    def context_tokens(self) -> int:
        return self.max_model_len

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url

    @property
    def max_calls(self) -> int:
        """What all its servers run at once."""
        return self.max_num_seqs * len(self.urls)

    def servers(self, name: str) -> tuple[str, ...]:
        """The names of its servers, for this name of the model, in the order of `urls`."""
        return _numbered(name, len(self.urls))

    @property
    def adapters(self) -> Mapping[str, Path]:
        """Empty: a remote adapter is configured as a model of its own."""
        return {}

    @property
    def capabilities(self) -> Capabilities:
        vllm = self.api == "vllm"
        return Capabilities(
            tools=self.tools,
            images=self.images,
            reasoning=self.reasoning,
            json_schema=vllm if self.json_schema is None else self.json_schema,
            logprobs=vllm if self.logprobs is None else self.logprobs,
            extensions=vllm,
            context_tokens=self.max_model_len,
            task=self.task,
        )


def _api_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError if it cannot be one of an API."""
    problem = f"{url!r} is not the URL of an API: write it in full, such as http://10.0.0.7:8000/v1"
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and len(parts.path.strip("/")) > 0
    except ValueError as error:
        raise ValueError(problem) from error
    if parts.scheme not in ("http", "https") or not usable or parts.username or parts.query or parts.fragment:
        raise ValueError(problem)
    return url.rstrip("/")


def _of_its_kind(value: object, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Model | RemoteModel:
    """Chooses the kind by its keys, because a plain union would report the errors of both kinds."""
    if isinstance(value, Model | RemoteModel):
        return value
    keys = {str(key) for key in value} if isinstance(value, Mapping) else set()
    if {"weights", "url"} <= keys:
        raise ValueError(
            "weights and url exclude each other: a model is either loaded here or runs elsewhere. Keep one of them"
        )
    kind, other = (RemoteModel, Model) if "url" in keys else (Model, RemoteModel)
    if misplaced := sorted(keys & (set(other.model_fields) - set(kind.model_fields))):
        why = "weights, but this model has a url" if kind is RemoteModel else "a url, but this model has none"
        raise ValueError(f"{', '.join(misplaced)} can be set only for a model with {why}")
    return kind.model_validate(value, context=info.context)


AnyModel = Annotated[Model | RemoteModel, WrapValidator(_of_its_kind)]


def with_adapters(models: Mapping[str, AnyModel]) -> Mapping[str, AnyModel]:
    """The model behind each callable name: its own name, and those of its adapters."""
    return {**models, **{adapter: model for model in models.values() for adapter in model.adapters}}
