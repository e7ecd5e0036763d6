"""The tables of rotary position embeddings, which vLLM keeps whole on every GPU, whatever `max_model_len` is.

vLLM 0.32: `rotary_embedding/__init__.py`, `get_rope`, makes one table of cosines and sines for each distinct setting, and
`base.py`, `_compute_cos_sin_cache`, one row of it for each position that config.json allows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_WITHOUT = frozenset({"nemotron_h"})
_OWN_LOCAL_TABLE = frozenset("gemma3_text gemma3n_text gemma4_text olmo3".split())
"""Their layers with a window have a table of their own: another base, or no scaling."""
_IN_FLOAT32 = frozenset({"gpt_oss"})
_OF_THE_ORIGINAL = frozenset("yarn deepseek_yarn deepseek_llama_scaling".split())
_MROPE_FACTOR = 4
"""A table for positions in images or videos has so many times the rows."""


def table_bytes(text: Mapping[str, Any], head_size: int, value_bytes: int) -> int:
    """Bytes of all tables of a model's text part, on each GPU."""
    kind = str(text.get("model_type"))
    if kind in _WITHOUT or text.get("position_embedding_type") == "nope":
        return 0
    rows = sum(_positions(text, each) * width for each, width in _tables(text, head_size))
    return rows * (4 if kind in _IN_FLOAT32 else value_bytes)


def settings(text: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings of RoPE: one for all layers, or one for each kind of layer; empty if there are none."""
    found = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(found, Mapping):
        return []
    nested = [each for each in found.values() if isinstance(each, Mapping)]
    return nested or [found]


def kind_of(setting: Mapping[str, Any]) -> str:
    return str(setting.get("rope_type") or setting.get("type") or "default")


def _tables(text: Mapping[str, Any], head_size: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    """The setting of each table, and its values for a position."""
    found = settings(text) or [{}]
    widest = int(text.get("qk_rope_head_dim") or text.get("global_head_dim") or head_size)
    for each in found:
        share = each.get("partial_rotary_factor") or text.get("partial_rotary_factor") or 1.0
        # Gemma 4 pads the part that does not turn with zeros.
        yield each, widest if kind_of(each) == "proportional" else int(widest * share)
    if len(found) == 1 and text.get("model_type") in _OWN_LOCAL_TABLE:
        yield {}, head_size


def _positions(text: Mapping[str, Any], setting: Mapping[str, Any]) -> int:
    own = int(text.get("max_position_embeddings") or 0)
    kind, factor = kind_of(setting), float(setting.get("factor") or 1.0)
    original = int(setting.get("original_max_position_embeddings") or text.get("original_max_position_embeddings") or 0)
    if kind in _OF_THE_ORIGINAL and original:
        own = int(original * factor)
    elif kind in ("linear", "dynamic"):
        own = int(own * factor)
    elif kind == "longrope":
        own += original
    return own * (_MROPE_FACTOR if "mrope_section" in setting else 1)
