"""What a planner reads in a model's config.json: sizes, and what each layer keeps in memory for a sequence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from cappella.errors import ConfigError

# What transformers fills in where a published config.json says nothing.
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
}
DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class Attention:
    """A layer that keeps a key and a value for each token, or for the last `window` tokens."""

    kv_heads: int
    head_size: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Latent:
    """A layer of multi-head latent attention: one compressed vector per token, whole on every GPU of a split."""

    size: int


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A layer of linear attention or of a state-space model: bytes of its state, and of those `copies` per sequence.

    With a prefix cache vLLM keeps two of them (Mamba-2: three), each at the end of a block.
    """

    state_bytes: int
    copies: int


Layer = Attention | Latent | Recurrent


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes as config.json gives them; `layers` are those that keep something, in no order.

    `inner_size` is that of a feed-forward layer which every token passes; of `expert_inner_size` each token passes
    `experts_per_token`. `latent_values` are a token's keys and values as latent attention unfolds them. A split over GPUs
    must divide each of `divisible`, quantised weights into whole groups.
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
    quantization: str | None
    tied: bool
    vision: bool
    layers: Mapping[Layer, int]


def read(config: Mapping[str, Any], place: str, dtype: str = "auto") -> Architecture:
    """Raises ConfigError, which names `place`, for a config.json that does not say enough."""
    text = text_config(config)
    text = {**DEFAULTS.get(text.get("model_type", ""), {}), **text}
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
            dtype=_dtype(config, text) if dtype == "auto" else dtype,
            quantization=_quantization(config, text),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            vision="vision_config" in config,
            layers=Counter(_layers(text)),
        )
    except KeyError as error:
        hint = "Copy the model's own config.json"
        raise ConfigError(place, f"config.json lacks {error}, which a plan needs", hint) from error
    except (TypeError, ValueError, IndexError) as error:
        hint = "Serve it with vLLM alone, and tell us"
        raise ConfigError(place, f"config.json cannot be planned with ({error})", hint) from error


def expert_padding(architecture: Architecture) -> float:
    """How much MXFP4 experts grow in memory: Marlin's kernels pad their sizes (vLLM: `oracle/mxfp4.py`)."""
    if architecture.quantization != "mxfp4":
        return 1.0
    inner, hidden = architecture.expert_inner_size, architecture.hidden_size
    return ceil(inner / 128) * 128 / inner * (ceil(hidden / 256) * 256 / hidden)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, where images have a part of their own."""
    return next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), Mapping)), config)


def _first(value: Any) -> int:
    """A size that may differ from layer to layer: the largest."""
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
    """The dense layers', where there are any; else the shared experts'."""
    if not _experts(text) or text.get("first_k_dense_replace"):
        return _first(text.get("intermediate_size") or 4 * text["hidden_size"])
    shared = (text.get("n_shared_experts") or 0) * _first(text.get("moe_intermediate_size") or 0)
    return int(text.get("shared_expert_intermediate_size") or text.get("shared_intermediate_size") or shared)


def _divisible(text: Mapping[str, Any], quantization: Mapping[str, Any]) -> tuple[int, ...]:
    """Heads and feed-forward sizes; those in groups of the weights that share a scale."""
    group = _group_size(quantization)
    sizes = [text.get(key) for key in ("intermediate_size", "shared_expert_intermediate_size")]
    inner = [_first(size) // group for size in sizes if size]
    if experts := text.get("moe_intermediate_size"):
        # vLLM cuts the blocks of experts in fp8 smaller where it must.
        inner.append(_first(experts) // (min(group, 32) if quantization.get("quant_method") == "fp8" else group))
    states = ("linear_num_key_heads", "mamba_n_heads", "mamba_num_heads", "n_groups", "mamba_n_groups")
    return (
        _first(text["num_attention_heads"]),
        *inner,
        *(int(text[key]) for key in states if (text.get(key) or 1) > 1),
    )


def _group_size(quantization: Mapping[str, Any]) -> int:
    nested = [each.get("weights") or {} for each in (quantization.get("config_groups") or {}).values()]
    sizes = [quantization.get("group_size"), *(each.get("group_size") for each in nested)]
    blocks = quantization.get("weight_block_size") or [1]
    return int(max(size for size in (*sizes, *blocks) if size and size > 0))


def legal_split(architecture: Architecture, gpus: int) -> bool:
    """Whether vLLM's tensor parallelism can share the model out among so many GPUs.

    Heads of the KV cache are shared out, or copied where there are fewer than GPUs; the vocabulary is padded.
    """
    kv = architecture.kv_heads
    return all(size % gpus == 0 for size in architecture.divisible) and (kv % gpus == 0 or gpus % kv == 0)


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """What vLLM makes of `auto`: the checkpoint's type, and bfloat16 for float32."""
    places = (text.get("dtype"), text.get("torch_dtype"), config.get("dtype"), config.get("torch_dtype"))
    named = str(next((name for name in places if name), "bfloat16")).removeprefix("torch.")
    return named if DTYPE_BYTES.get(named, 4) == 2 else "bfloat16"


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    found = config.get("quantization_config") or text.get("quantization_config") or {}
    return found.get("quant_method")


def _layers(text: Mapping[str, Any]) -> list[Layer]:
    """One entry for each layer that keeps something: the last ones may read what others keep."""
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
        raise TypeError(f"config.json has layers of a kind that no plan knows: {', '.join(sorted(unknown))}")
    return [layer for kind in kinds if (layer := made[kind]) is not None]


def _full_attention(text: Mapping[str, Any]) -> Layer:
    if text.get("kv_lora_rank"):
        return Latent(text["kv_lora_rank"] + text["qk_rope_head_dim"])
    heads = text.get("num_global_key_value_heads") or _kv_heads(text)
    return Attention(heads, text.get("global_head_dim") or _head_size(text))


def _local_attention(text: Mapping[str, Any]) -> Layer:
    if text.get("attention_chunk_size"):
        # vLLM keeps all of it: its manager of unlike layers does not take chunks.
        return Attention(_kv_heads(text), _head_size(text))
    return Attention(_kv_heads(text), _head_size(text), window=text.get("sliding_window"))


def _depth(text: Mapping[str, Any]) -> int:
    """Some configs have a list of layers alone."""
    listed = text.get("layers_block_type") or text.get("layer_types") or text.get("hybrid_override_pattern")
    return int(text["num_hidden_layers"] if "num_hidden_layers" in text or not listed else len(listed))


def _kinds(text: Mapping[str, Any]) -> Sequence[str]:
    """A word for each layer: as the file says, or by the rule that its model's code follows."""
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
    """Shapes of the states: Mamba-2's, or those of a gated delta net (see vLLM's MambaStateShapeCalculator)."""
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
