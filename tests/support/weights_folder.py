"""Model folders for planning: valid safetensors headers without values."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 1024,
}
BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "I32": 4, "U8": 1}

Shapes = Mapping[str, tuple[str, Sequence[int]]]
"""The type and shape of each tensor."""


def write_safetensors(path: Path, shapes: Shapes) -> None:
    """Write a safetensors file with a valid header and a hole instead of values, which takes no disk space."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_model(folder: Path, config: Any = None, tokenizer: Any = None, shapes: Shapes | None = None) -> Path:
    """Write a model folder that a plan and a supervisor accept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY if config is None else config))
    (folder / "tokenizer.json").write_text(json.dumps({} if tokenizer is None else tokenizer))
    write_safetensors(folder / "model.safetensors", shapes or llama_shapes(config or TINY))
    return folder


def llama_shapes(config: Mapping[str, Any]) -> Shapes:
    """The tensors of a Llama model of these sizes."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    heads, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, tuple[str, Sequence[int]]] = {
        "model.embed_tokens.weight": ("BF16", (vocabulary, hidden)),
        "lm_head.weight": ("BF16", (vocabulary, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": ("BF16", (hidden,)),
            at + "post_attention_layernorm.weight": ("BF16", (hidden,)),
            at + "self_attn.q_proj.weight": ("BF16", (heads, hidden)),
            at + "self_attn.k_proj.weight": ("BF16", (keys, hidden)),
            at + "self_attn.v_proj.weight": ("BF16", (keys, hidden)),
            at + "self_attn.o_proj.weight": ("BF16", (hidden, heads)),
            at + "mlp.gate_proj.weight": ("BF16", (inner, hidden)),
            at + "mlp.up_proj.weight": ("BF16", (inner, hidden)),
            at + "mlp.down_proj.weight": ("BF16", (hidden, inner)),
        }
    return shapes
