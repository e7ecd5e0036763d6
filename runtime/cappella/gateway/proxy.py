"""What is handed on of a request to a model by its own name: what the policy for models leaves of it.

The engine checks the values; other fields never reach it. A body that has none is forwarded unchanged: as in any vLLM
server, a `<|im_end|>` in a text ends the chat turn. Requests to an ensemble are sanitized (`engines/sanitize.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cappella.gateway.formats import policy
from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.formats.api_errors import OLLAMA, ollama_error
from cappella.gateway.formats.policy_models import MODELS
from cappella.gateway.formats.policy_parts import NO_URLS
from cappella.gateway.formats.sse import DONE, frame
from cappella.gateway.reply_types import ErrorBody
from cappella.gateway.validation import require_none
from cappella.types import Json

_WITHOUT_TOOLS = ("tool_choice", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request as the engine gets it, and the names of the fields that it does not get."""

    wire: Json
    body: bytes
    ignored: list[str]


def forwardable(path: str, wire: Json, body: bytes, refuse_unknown: bool = False) -> Forwarded:
    """What of a request is handed on. Raises RequestError for what would change the answer, and is not done."""
    reading = policy.read(MODELS[path], wire, refuse_unknown)
    for url, place in _urls({name: reading.body.get(name) for name in ("messages", "input")}):
        if not url.startswith("data:"):
            reading.refuse(place, f"{NO_URLS}, and {url[:60]!r} is an address")
    require_none(reading.problems)
    kept = _without_idle(reading.body)
    return Forwarded(kept, body if kept is wire else orjson.dumps(kept), reading.ignored)


def _without_idle(wire: Json) -> Json:
    """The request without what asks for nothing beside its other fields, but is an error to engines."""
    idle = [
        name for name in _WITHOUT_TOOLS if not wire.get("tools") and wire.get(name) in ("auto", "none", True, False)
    ]
    idle += ["stream_options"] if wire.get("stream") is not True else []
    if not any(name in wire for name in idle):
        return wire
    return {name: value for name, value in wire.items() if name not in idle}


def broken_stream_events(path: str, error: ErrorBody) -> bytes:
    """The last events of a stream that fails, in the form of the API that the client called."""
    if path == "/v1/messages":
        return frame(error_body(502, error), "error")
    if path == "/v1/responses":
        return frame({**error, "type": "error"}, "error")
    if path in OLLAMA:
        return orjson.dumps(ollama_error(error)) + b"\n"
    return frame({"error": error}) + DONE


def _urls(value: Any, place: policy.Path = ()) -> Iterator[tuple[str, policy.Path]]:
    """Every string under a key `url` or `…_url`, and where it stands."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _urls(each, (*place, str(name)))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _urls(each, (*place, index))
    elif isinstance(value, str):
        key = next((str(each) for each in reversed(place) if isinstance(each, str)), "")
        if key == "url" or key.endswith("_url"):
            yield value, place
