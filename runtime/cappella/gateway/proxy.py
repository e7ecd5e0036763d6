"""Checks of requests to a model by its own name: OpenAI's fields and vLLM's sampling fields are allowed.

The engine checks their values; other fields never reach it. The body is forwarded unchanged: as in any vLLM server, a
`<|im_end|>` in a text ends the chat turn. Requests to an ensemble are sanitized (`engines/sanitize.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cappella.errors import RequestError
from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.formats.api_errors import OLLAMA, ollama_error
from cappella.gateway.formats.sse import DONE, frame
from cappella.gateway.reply_types import ErrorBody
from cappella.types import Sampling

# vLLM's /v1/completions has only `max_tokens` for the length of an answer.
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
    # Not `chat_template`: a template is a program.
    "/tokenize": frozenset(
        "model prompt messages tools add_special_tokens add_generation_prompt continue_final_message"
        " return_token_strs chat_template_kwargs".split()
    ),
    "/detokenize": frozenset(("model", "tokens")),
}


def require_forwardable(path: str, body: Mapping[str, Any]) -> None:
    """Raises RequestError for a field that a model does not accept, or a URL that the engine would fetch."""
    for name in body:
        if name in ("fusion", "plugins"):
            raise RequestError(f"{name} is for ensembles; {body['model']} is one model.", name, "unknown_field")
        if name not in FIELDS[path]:
            raise RequestError(f"{name} is not a field of a request to a model.", name, "unknown_field")
    for url in _urls([body.get("messages"), body.get("input")]):
        if not url.startswith("data:"):
            message = f"{url[:60]!r} would have to be fetched: send the data itself, as data:…"
            raise RequestError(message, "messages")


def broken_stream_events(path: str, error: ErrorBody) -> bytes:
    """The last events of a stream that fails, in the form of the API that the client called."""
    if path == "/v1/messages":
        return frame(error_body(502, error), "error")
    if path == "/v1/responses":
        return frame({**error, "type": "error"}, "error")
    if path in OLLAMA:
        return orjson.dumps(ollama_error(error)) + b"\n"
    return frame({"error": error}) + DONE


def _urls(value: Any, key: str = "") -> Iterator[str]:
    """Every string under a key `url` or `…_url`."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _urls(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _urls(each, key)
    elif isinstance(value, str) and (key == "url" or key.endswith("_url")):
        yield value
