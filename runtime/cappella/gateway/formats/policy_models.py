"""The policy for requests to a model by its own name: what vLLM honours is handed on, and nothing else reaches it."""

from collections.abc import Mapping
from dataclasses import replace

from cappella.gateway.formats import policy_parts as parts
from cappella.gateway.formats.policy import Fields, Kinds
from cappella.gateway.formats.policy_ensembles import (
    CHAT,
    HINTS,
    IN_BACKGROUND,
    MESSAGES,
    OWN_TEMPLATE,
    RESPONSES,
)
from cappella.gateway.formats.policy_pooling import POOLING
from cappella.types import Sampling

# vLLM's /v1/completions has only `max_tokens` for the length of an answer.
_COMMON = " ".join(name for name in Sampling.model_fields if name != "max_completion_tokens") + (
    " model stream stream_options n logit_bias logprobs user min_tokens stop_token_ids ignore_eos skip_special_tokens"
    " structured_outputs response_format stream_interval"
)
_FOR_ENSEMBLES = "it is for ensembles, and this is one model: leave it out, or call an ensemble"
_NOT_KEPT = {
    "previous_response_id": "only responses of ensembles are stored: send the earlier items themselves",
    "background": IN_BACKGROUND,
}
_NEVER = {"fusion": _FOR_ENSEMBLES, "plugins": _FOR_ENSEMBLES, "chat_template": OWN_TEMPLATE}


def _of_model(ensemble: Fields, honoured: str, below: Mapping[str, Fields | Kinds]) -> Fields:
    """The policy of an API for a model: that for ensembles, but for what the engine honours by itself."""
    names = set(honoured.split())
    return replace(
        ensemble,
        honoured=honoured,
        hints=" ".join(name for name in ensemble.hints.split() if name not in names),
        told=" ".join(name for name in ensemble.told.split() if name not in names),
        refused={**{name: why for name, why in ensemble.refused.items() if name not in names}, **_NEVER},
        nothing={name: values for name, values in ensemble.nothing.items() if name not in names or name == "seed"},
        below={"chat_template_kwargs": parts.TEMPLATE_WORDS, **below},
    )


def _open(kinds: Kinds) -> Kinds:
    """The same kinds; the engine judges others, such as parts of sound."""
    return replace(kinds, lets_unknown="pass", refused={}, told="")


_OPEN_PARTS = _open(parts.CHAT_PARTS)
_OPEN_MESSAGES = replace(
    parts.CHAT_MESSAGES,
    kinds={
        role: replace(fields, below={**fields.below, "content": _OPEN_PARTS})
        for role, fields in parts.CHAT_MESSAGES.kinds.items()
    },
    refused={},
    lets_unknown="pass",
)

MODELS: Mapping[str, Fields] = {
    "/v1/chat/completions": _of_model(
        CHAT,
        f"{_COMMON} messages max_tokens max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls"
        " reasoning_effort include_reasoning chat_template_kwargs continue_final_message add_generation_prompt",
        {"messages": _OPEN_MESSAGES, "tools": replace(parts.CHAT_TOOLS, kinds={"function": parts.CHAT_FUNCTION})},
    ),
    "/v1/completions": Fields(
        f"{_COMMON} prompt suffix echo max_tokens",
        f"{HINTS.replace('user ', '')} metadata",
        told="store",
        empty="stop stream_options",
        refused={**_NEVER, "best_of": "send n"},
        nothing={"store": (False,), "best_of": (1,), "seed": (-1,), "suffix": ("",)},
    ),
    "/v1/responses": _of_model(
        replace(RESPONSES, refused={**RESPONSES.refused, **_NOT_KEPT}),
        "model input instructions stream temperature top_p max_output_tokens reasoning text tools tool_choice"
        " parallel_tool_calls store user truncation include top_logprobs metadata",
        {"tools": replace(parts.RESPONSE_TOOLS, kinds=parts.ENGINE_TOOLS), "text": RESPONSES.below["text"]},
    ),
    "/v1/messages": _of_model(
        MESSAGES,
        "model messages system max_tokens stop_sequences stream temperature top_p top_k tools tool_choice"
        " metadata thinking output_config chat_template_kwargs",
        {"messages": _open(parts.TURNS), "tools": parts.BLOCK_TOOLS, "system": _open(parts.SYSTEM_BLOCKS)},
    ),
    # Not `chat_template`: a template is a program.
    "/tokenize": Fields(
        "model prompt messages tools add_special_tokens add_generation_prompt continue_final_message return_token_strs"
        " chat_template_kwargs",
        HINTS,
        empty="tools chat_template_kwargs",
        refused=_NEVER,
        below={"messages": _OPEN_MESSAGES, "chat_template_kwargs": parts.TEMPLATE_WORDS},
    ),
    "/detokenize": Fields("model tokens", HINTS, refused=_NEVER),
    **POOLING,
}
