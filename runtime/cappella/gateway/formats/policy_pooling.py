"""The policy for requests of embeddings and scores, by the path of the engine that answers them."""

from collections.abc import Mapping

from cappella.gateway.formats import policy_parts as parts
from cappella.gateway.formats.policy import Fields
from cappella.gateway.formats.policy_ensembles import HINTS

_OF_ENSEMBLES = "it is for ensembles, and this is one model: leave it out"
_REFUSED = {
    "fusion": _OF_ENSEMBLES,
    "plugins": _OF_ENSEMBLES,
    "chat_template": "the model's own is used: leave it out",
    "chat_template_kwargs": "the template has no words of its own here: leave it out",
    "mm_processor_kwargs": "only texts are read: leave it out",
    "padding": "no text is padded: leave it out",
}
_COMMON = "model user truncate_prompt_tokens truncation_side use_activation"
_PAIRS = f"{_COMMON} instruction max_tokens_per_query max_tokens_per_doc"
_HINTS = f"{HINTS.replace('user ', '')} metadata"

POOLING: Mapping[str, Fields] = {
    "/v1/embeddings": Fields(
        f"{_COMMON} input encoding_format dimensions add_special_tokens embed_dtype endianness",
        _HINTS,
        refused=_REFUSED,
    ),
    "/rerank": Fields(f"{_PAIRS} query documents top_n", _HINTS, refused=_REFUSED),
    "/score": Fields(f"{_PAIRS} queries documents", _HINTS, refused=_REFUSED),
    "/classify": Fields(
        f"{_COMMON} input messages add_special_tokens",
        _HINTS,
        refused=_REFUSED,
        below={"messages": parts.CHAT_MESSAGES},
    ),
}
