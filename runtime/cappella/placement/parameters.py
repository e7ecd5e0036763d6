"""How many parameters a model has, as far as the bytes of its weights and its config.json tell."""

from collections.abc import Iterator, Mapping
from typing import Any

from cappella.placement.architecture import DTYPE_BYTES, text_config

_BITS = {"fp8": 8, "fbgemm_fp8": 8, "awq": 4, "gptq": 4, "mxfp4": 4, "fp_quant": 4}
"""Of a weight, where the settings of a method do not say it."""
_SCALES = 1.05
"""The size of weights of fewer than 8 bits with the scales of their groups, by that without: 1.04 in AWQ, 1.06 in MXFP4."""


def count(config: Mapping[str, Any], weight_bytes: int) -> int:
    """Of quantised weights the embeddings are in 16 bits; of the others all have the model's own dtype.

    Within some 5% of the truth where all layers are quantised; layers that stay in 16 bits, as in gpt-oss, count for more.
    """
    text = text_config(config)
    bits = _bits(config.get("quantization_config") or text.get("quantization_config") or {})
    if bits is None:
        named = next((each[key] for each in (config, text) for key in ("dtype", "torch_dtype") if each.get(key)), "")
        return weight_bytes // DTYPE_BYTES.get(str(named).removeprefix("torch."), 2)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    embeddings: int = text.get("vocab_size", 0) * text.get("hidden_size", 0) * (1 if tied else 2)
    packed_bytes = max(0, weight_bytes - 2 * embeddings)
    return embeddings + round(packed_bytes * 8 / bits / (_SCALES if bits < 8 else 1))


def _bits(settings: Mapping[str, Any]) -> int | None:
    """Of a quantised weight; None where none are, or it is not known."""
    return next((each for each in _stated(settings) if isinstance(each, int) and each > 0), None)


def _stated(settings: Mapping[str, Any]) -> Iterator[Any]:
    yield settings.get("bits")
    for group in (settings.get("config_groups") or {}).values():
        yield (group.get("weights") or {}).get("num_bits")
    if settings.get("load_in_4bit"):
        yield 4
    if settings.get("load_in_8bit"):
        yield 8
    yield _BITS.get(str(settings.get("quant_method")))
