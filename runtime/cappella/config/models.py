"""What a config may say of one model: weights that we load, or the address of a server that has loaded its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator, model_validator

from cappella.config import engine_args
from cappella.config.fields import Bytes, Name
from cappella.config.options import Seconds
from cappella.types import Capabilities, Frozen


class Model(Frozen):
    """One set of weights and how its engine serves it.

    The parsers are vLLM's, by name: a model takes tools, or an effort to reason with, only if it has the parser. With
    `prompt_lookup_tokens` it guesses so many tokens ahead, by what followed the same words before: a judge copies much.
    What is None is the plan's to choose. `card` is a file of model_configs/models: what is known of these weights.
    An engine from which for `hung_after_s` no token and no step came, though asked for one, is ended and starts anew.
    `adapters` are LoRA adapters by name, each called as a model of its own: one engine serves them with its weights.
    `engine_args` are further flags of vLLM's server, of those in config/engine_args.py.
    """

    weights: Path
    card: Path | None = None
    max_model_len: Annotated[int, Field(ge=16)]
    kv_cache_bytes: Annotated[Bytes, Field(ge=1 << 20)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    tensor_parallel_size: Literal[1, 2, 4, 8, 16] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    dtype: str = "auto"
    enforce_eager: bool = False
    hung_after_s: Seconds = 60.0
    cpu_threads: Annotated[int, Field(ge=1)] | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    images: bool = False
    prompt_lookup_tokens: Annotated[int, Field(ge=1, le=32)] | None = None
    adapters: Mapping[Name, Path] = {}
    engine_args: Mapping[str, bool | int | float | str | Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _gpus_agree(self) -> "Model":
        if self.gpus and len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"gpus names one twice: {', '.join(map(str, self.gpus))}")
        if self.gpus and self.tensor_parallel_size not in (None, len(self.gpus)):
            raise ValueError(f"gpus names {len(self.gpus)} and tensor_parallel_size {self.tensor_parallel_size}")
        return self

    @model_validator(mode="after")
    def _only_allowed_engine_args(self) -> "Model":
        for name in self.engine_args:
            if engine_args.normal(name) not in engine_args.ALLOWED:
                allowed = "only flags about speed and memory may be set, by their whole names"
                raise ValueError(f"engine_args may not set {name!r}: {allowed} (config/engine_args.py lists them)")
            if engine_args.normal(name) == "speculative_config" and self.prompt_lookup_tokens is not None:
                raise ValueError("prompt_lookup_tokens and speculative_config say the same thing: set one of them")
        return self

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            tools=self.tool_parser is not None, images=self.images, reasoning=self.reasoning_parser is not None
        )


class RemoteModel(Frozen):
    """A model of an OpenAI-compatible server that somebody else runs, at an address that our processes may reach.

    `model` is what that server calls it, by default its name here; `key_file` holds the server's API key. What the
    model takes the config says: with `api: openai` only what it names, with `api: vllm` all that vLLM's server has.
    A server from which for `hung_after_s` nothing came, though it has calls, is asked for a token.
    """

    url: str
    model: str | None = None
    key_file: Path | None = None
    api: Literal["openai", "vllm"] = "openai"
    max_model_len: Annotated[int, Field(ge=16)]
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    hung_after_s: Seconds = 60.0
    tools: bool = False
    images: bool = False
    reasoning: bool = False
    json_schema: bool | None = None
    logprobs: bool | None = None

    @field_validator("url")
    @classmethod
    def _is_an_api(cls, url: str) -> str:
        problem = f"{url!r} is no address of an API: write it whole, such as http://10.0.0.7:8000/v1"
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname) and parts.port != 0 and len(parts.path.strip("/")) > 0
        except ValueError as error:
            raise ValueError(problem) from error
        if parts.scheme not in ("http", "https") or not usable or parts.username or parts.query or parts.fragment:
            raise ValueError(problem)
        return url.rstrip("/")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def adapters(self) -> Mapping[str, Path]:
        """None: an adapter of that server is attached as a model of its own."""
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
        )


def _of_its_kind(value: object, _: ValidatorFunctionWrapHandler) -> Model | RemoteModel:
    """A union would tell what is wrong with both kinds."""
    if isinstance(value, Model | RemoteModel):
        return value
    keys = {str(key) for key in value} if isinstance(value, Mapping) else set()
    if {"weights", "url"} <= keys:
        raise ValueError("weights and url exclude each other: a model is loaded here, or runs elsewhere. Keep one")
    kind, other = (RemoteModel, Model) if "url" in keys else (Model, RemoteModel)
    if strange := sorted(keys & (set(other.model_fields) - set(kind.model_fields))):
        what = "weights, and this model has a url" if kind is RemoteModel else "a url, and this model has none"
        raise ValueError(f"{', '.join(strange)} belongs to a model with {what}")
    return kind.model_validate(value)


AnyModel = Annotated[Model | RemoteModel, WrapValidator(_of_its_kind)]
