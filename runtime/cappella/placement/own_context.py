"""The longest context of a model by its config.json, as vLLM reads it (`_get_and_verify_max_len`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cappella.placement import rope
from cappella.placement.architecture import text_config

KEYS = (
    "max_position_embeddings n_positions max_seq_len seq_length model_max_length max_target_positions"
    " max_sequence_length max_seq_length seq_len"
).split()
UNKNOWN_TOKENS = 2048
"""vLLM's assumption if config.json says nothing."""
SCALED_ALREADY = frozenset("default su longrope llama3 yarn deepseek_yarn deepseek_llama_scaling".split())
"""With these kinds of RoPE scaling the published size has the factor in it."""


@dataclass(frozen=True, slots=True)
class OwnContext:
    """`default_tokens` are what the model is made for, `max_tokens` what vLLM starts it with at most."""

    default_tokens: int
    max_tokens: int


def of(config: Mapping[str, Any]) -> OwnContext:
    text = text_config(config)
    sizes = [int(text[key]) for key in KEYS if isinstance(text.get(key), int)]
    own = text.get("model_max_length")
    limit = own if isinstance(own, int) and own else min(sizes, default=UNKNOWN_TOKENS)
    scaling = [each for each in rope.settings(text) if isinstance(each.get("factor"), (int, float)) and each["factor"]]
    kinds = {rope.kind_of(each) for each in rope.settings(text)}
    if scaling and not kinds & SCALED_ALREADY and "gemma3" not in str(text.get("model_type")):
        limit = int(limit * float(scaling[-1]["factor"]))
    original = text.get("original_max_position_embeddings")
    default = int(original) if "longrope" in kinds and isinstance(original, int) else limit
    return OwnContext(default, max(limit, default))
