"""What a model called by its own name may be sent: OpenAI's fields, and vLLM's sampling fields.

The engine checks their values; what is not in these lists never reaches it. Texts are the client's own bytes: as in any
vLLM server, a `<|im_end|>` in one ends its turn. What is asked of an ensemble is made plain (`engines/vllm/sanitize.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cappella.errors import RequestError
from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.formats.sse import DONE, frame
from cappella.types import Sampling

# vLLM's completions know the length of an answer as `max_tokens` alone.
_COMMON = (set(Sampling.model_fields) - {"max_completion_tokens"}) | set(
    "model stream stream_options n logit_bias logprobs user min_tokens stop_token_ids ignore_eos skip_special_tokens"
    " structured_outputs response_format stream_interval".split()
)
FIELDS = {
    "/v1/chat/completions": frozenset(
        _COMMON
        | set(
            "messages max_tokens max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls"
            " reasoning_effort include_reasoning chat_template_kwargs".split()
        )
    ),
    "/v1/completions": frozenset(_COMMON | set("prompt suffix echo max_tokens".split())),
    "/v1/responses": frozenset(
        "model input instructions stream temperature top_p max_output_tokens reasoning text tools tool_choice"
        " parallel_tool_calls store user truncation include top_logprobs metadata".split()
    ),
    "/v1/messages": frozenset(
        "model messages system max_tokens stop_sequences stream temperature top_p top_k tools tool_choice"
        " metadata".split()
    ),
}


def require_forwardable(path: str, body: Mapping[str, Any]) -> None:
    """Raises RequestError for a field that a model does not take, or an address that the engine would fetch."""
    for name in body:
        if name in ("fusion", "plugins"):
            raise RequestError(f"{name} is for ensembles; {body['model']} is one model.", name, "unknown_field")
        if name not in FIELDS[path]:
            raise RequestError(f"{name} is not a field that a model takes.", name, "unknown_field")
    for address in _addresses([body.get("messages"), body.get("input")]):
        if not address.startswith("data:"):
            message = f"{address[:60]!r} would have to be fetched: send the data itself, as data:…"
            raise RequestError(message, "messages")


def broken_off(path: str, error: Mapping[str, Any]) -> bytes:
    """The last events of a stream that cannot go on, in the form of the API that was called."""
    if path == "/v1/messages":
        return frame(error_body(502, error), "error")
    if path == "/v1/responses":
        return frame({**error, "type": "error"}, "error")
    return frame({"error": error}) + DONE


def _addresses(value: Any, key: str = "") -> Iterator[str]:
    """Every text under a key that names an address."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _addresses(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each, key)
    elif isinstance(value, str) and (key == "url" or key.endswith("_url")):
        yield value
