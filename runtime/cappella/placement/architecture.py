"""Sizes from a model's config.json, and what each layer keeps in memory per sequence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cappella.errors import ConfigError
from cappella.placement import quantisation, rope
from cappella.placement.quantisation import Quantisation

# Defaults of transformers for keys that a published config.json omits.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
    "gemma2": {"sliding_window_pattern": 2, "tie_word_embeddings": True},
    **{key: {"partial_rotary_factor": 0.25} for key in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
}
DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class Attention:
    """A layer that caches a key and a value of each token, or of the last `window` tokens."""

    kv_heads: int
    head_size: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Latent:
    """A layer of multi-head latent attention: one compressed vector per token, replicated on every GPU of a split."""

    size: int


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A layer of linear attention or of a state-space model: `copies` states of `state_bytes` per sequence.

    With a prefix cache vLLM keeps two copies (Mamba-2: three), each at the end of a block.
    """

    state_bytes: int
    copies: int


Layer = Attention | Latent | Recurrent


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes from config.json; `layers` counts the layers that keep something per sequence, by kind.

    `rope_bytes` are tables of position embeddings, whole on every GPU. `inner_size` is that of the feed-forward layer for every token; each token also passes `experts_per_token` experts of
    `expert_inner_size`. `latent_values` are the expanded keys and values of a token in latent attention. The number of
    GPUs of a split must divide each of `divisible`, which counts quantised sizes in groups that share a scale.
    """

    hidden_size: int
    inner_size: int
    expert_inner_size: int
    experts_per_token: int
    latent_values: int
    vocab_size: int
    kv_heads: int
    divisible: tuple[int, ...]
    depth: int
    experts: int
    dtype: str
    quantisation: Quantisation
    tied: bool
    vision: bool
    rope_bytes: int
    layers: Mapping[Layer, int]


def read(config: Mapping[str, Any], place: str, dtype: str = "auto") -> Architecture:
    """The architecture in a config.json. Raises ConfigError, with `place`, if it lacks a size or has an unknown shape."""
    text = text_config(config)
    text = {**DEFAULTS.get(text.get("model_type", ""), {}), **text}
    chosen = dtype if dtype != "auto" else _dtype(config, text)
    try:
        return Architecture(
            hidden_size=text["hidden_size"],
            inner_size=_inner_size(text),
            expert_inner_size=_first(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0),
            experts_per_token=_experts_per_token(text),
            latent_values=_latent_values(text),
            vocab_size=text["vocab_size"],
            kv_heads=_kv_heads(text),
            divisible=_divisible(text, config.get("quantization_config") or {}),
            depth=_depth(text),
            experts=_experts(text),
            dtype=chosen,
            quantisation=quantisation.of(_quantisation_settings(config, text)),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            vision="vision_config" in config,
            rope_bytes=rope.table_bytes(text, _head_size(text), DTYPE_BYTES[chosen]),
            layers=Counter(_layers(text)),
        )
    except KeyError as error:
        hint = "Copy the model's own config.json"
        raise ConfigError(place, f"config.json lacks {error}, which planning needs", hint) from error
    except (TypeError, ValueError, IndexError) as error:
        hint = "Use another model, and report this one"
        raise ConfigError(place, f"the memory of this model cannot be planned ({error})", hint) from error


def expert_padding(architecture: Architecture, gpus: int) -> float:
    """The factor by which experts grow in memory when kernels pad their sizes on each GPU of a split."""
    inner = architecture.expert_inner_size // gpus
    return architecture.quantisation.expert_padding(inner, architecture.hidden_size)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part for the language model, if the config has separate parts for text and vision."""
    return next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), Mapping)), config)


def _first(value: Any) -> int:
    """A size, or the largest of a list of sizes by layer."""
    return max(value) if isinstance(value, Sequence) else int(value)


def _kv_heads(text: Mapping[str, Any]) -> int:
    return _first(text.get("num_key_value_heads") or text["num_attention_heads"])


def _head_size(text: Mapping[str, Any]) -> int:
    return int(text.get("head_dim") or text["hidden_size"] // _first(text["num_attention_heads"]))


def _latent_values(text: Mapping[str, Any]) -> int:
    if not text.get("kv_lora_rank"):
        return 0
    return _first(text["num_attention_heads"]) * int(text["qk_nope_head_dim"] + text["v_head_dim"])


def _experts(text: Mapping[str, Any]) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return next((int(text[name]) for name in names if text.get(name)), 0)


def _experts_per_token(text: Mapping[str, Any]) -> int:
    return int(text.get("num_experts_per_tok") or text.get("top_k_experts") or 1) if _experts(text) else 0


def _inner_size(text: Mapping[str, Any]) -> int:
    """The size of the dense layers, if there are any; else of the shared experts."""
    if not _experts(text) or text.get("first_k_dense_replace"):
        return _first(text.get("intermediate_size") or 4 * text["hidden_size"])
    shared = (text.get("n_shared_experts") or 0) * _first(text.get("moe_intermediate_size") or 0)
    return int(text.get("shared_expert_intermediate_size") or text.get("shared_intermediate_size") or shared)


def _divisible(text: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of heads, and feed-forward sizes in groups of weights that share a scale."""
    group = _group_size(settings)
    sizes = [text.get(key) for key in ("intermediate_size", "shared_expert_intermediate_size")]
    inner = [_first(size) // group for size in sizes if size]
    if experts := text.get("moe_intermediate_size"):
        inner.append(_first(experts) // quantisation.of(settings).expert_group(group))
    states = ("linear_num_key_heads", "mamba_n_heads", "mamba_num_heads", "n_groups", "mamba_n_groups")
    return (
        _first(text["num_attention_heads"]),
        *inner,
        *(int(text[key]) for key in states if (text.get(key) or 1) > 1),
    )


def _group_size(settings: Mapping[str, Any]) -> int:
    nested = [each.get("weights") or {} for each in (settings.get("config_groups") or {}).values()]
    sizes = [settings.get("group_size"), *(each.get("group_size") for each in nested)]
    blocks = settings.get("weight_block_size") or [1]
    return int(max(size for size in (*sizes, *blocks) if size and size > 0))


def legal_split(architecture: Architecture, gpus: int) -> bool:
    """Whether vLLM's tensor parallelism can split the model over this many GPUs.

    KV heads are split, or replicated if there are fewer of them than GPUs; the vocabulary is padded.
    """
    kv = architecture.kv_heads
    return all(size % gpus == 0 for size in architecture.divisible) and (kv % gpus == 0 or gpus % kv == 0)


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The type that vLLM chooses for `auto`: the checkpoint's, but bfloat16 instead of float32."""
    places = (text.get("dtype"), text.get("torch_dtype"), config.get("dtype"), config.get("torch_dtype"))
    named = str(next((name for name in places if name), "bfloat16")).removeprefix("torch.")
    return named if DTYPE_BYTES.get(named, 4) == 2 else "bfloat16"


def _quantisation_settings(config: Mapping[str, Any], text: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("quantization_config") or text.get("quantization_config") or {}


def _layers(text: Mapping[str, Any]) -> list[Layer]:
    """One entry per layer that keeps something; the last layers may share the cache of others."""
    full = _full_attention(text)
    kinds = _kinds(text)[: _depth(text) - (text.get("num_kv_shared_layers") or 0)]
    local = _local_attention(text)
    made: dict[str, Layer | None] = {
        "full_attention": full,
        "attention": full,
        "*": full,
        "sliding_attention": local,
        "chunked_attention": local,
        **dict.fromkeys(("-", "E", "mlp", "moe")),
    }
    recurrent = {"linear_attention", "mamba", "M"} & set(kinds)
    if recurrent:
        made |= dict.fromkeys(recurrent, _recurrent(text))
    if unknown := set(kinds) - set(made):
        raise TypeError(f"unknown kinds of layers: {', '.join(sorted(unknown))}")
    return [layer for kind in kinds if (layer := made[kind]) is not None]


def _full_attention(text: Mapping[str, Any]) -> Layer:
    if text.get("kv_lora_rank"):
        return Latent(text["kv_lora_rank"] + text["qk_rope_head_dim"])
    heads = text.get("num_global_key_value_heads") or _kv_heads(text)
    return Attention(heads, text.get("global_head_dim") or _head_size(text))


def _local_attention(text: Mapping[str, Any]) -> Layer:
    if text.get("attention_chunk_size"):
        # vLLM caches all tokens: its hybrid cache manager does not support chunks.
        return Attention(_kv_heads(text), _head_size(text))
    return Attention(_kv_heads(text), _head_size(text), window=text.get("sliding_window"))


def _depth(text: Mapping[str, Any]) -> int:
    """The number of layers; some configs have only a list of them."""
    listed = text.get("layers_block_type") or text.get("layer_types") or text.get("hybrid_override_pattern")
    return int(text["num_hidden_layers"] if "num_hidden_layers" in text or not listed else len(listed))


def _kinds(text: Mapping[str, Any]) -> Sequence[str]:
    """The kind of each layer: as listed in the file, or by the rule in the model's code."""
    depth = _depth(text)
    if pattern := text.get("hybrid_override_pattern"):
        return str(pattern)
    for key in ("layer_types", "layers_block_type"):
        if text.get(key):
            return [str(kind) for kind in text[key]]
    if every := text.get("full_attention_interval"):
        return ["full_attention" if (layer + 1) % every == 0 else "linear_attention" for layer in range(depth)]
    if text.get("attention_chunk_size"):
        every = text.get("no_rope_layer_interval") or 4
        return ["full_attention" if (layer + 1) % every == 0 else "chunked_attention" for layer in range(depth)]
    if text.get("sliding_window") and text.get("use_sliding_window", True):
        every = text.get("sliding_window_pattern")
        full = [every is not None and (layer + 1) % every == 0 for layer in range(depth)]
        return ["full_attention" if each else "sliding_attention" for each in full]
    return ["full_attention"] * depth


def _recurrent(text: Mapping[str, Any]) -> Recurrent:
    """State sizes of Mamba-2, or of a gated delta net (vLLM: `MambaStateShapeCalculator`)."""
    if "linear_num_value_heads" in text:
        keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
        values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
        state_bytes = values * text["linear_key_head_dim"] * DTYPE_BYTES[text.get("mamba_ssm_dtype") or "bfloat16"]
        return Recurrent(state_bytes + 2 * (2 * keys + values) * (text["linear_conv_kernel_dim"] - 1), copies=2)
    heads = text.get("mamba_n_heads") or text["mamba_num_heads"]
    size = text.get("mamba_d_head") or text["mamba_head_dim"]
    state = text.get("mamba_d_state") or text["ssm_state_size"]
    groups = text.get("mamba_n_groups") or text["n_groups"]
    kernel = text.get("mamba_d_conv") or text["conv_kernel"]
    # Nemotron-H's state stays in float32.
    dtype = "float32" if "ssm_state_size" in text else "bfloat16"
    state_bytes = heads * size * state * DTYPE_BYTES[text.get("mamba_ssm_cache_dtype") or dtype]
    return Recurrent(state_bytes + 2 * (heads * size + 2 * groups * state) * (kernel - 1), copies=3)
