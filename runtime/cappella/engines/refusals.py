"""Refusals of OpenAI-compatible servers, by status, in a stream, or as a 500: the request's fault, or the server's."""

import re
from typing import Any

import orjson

from cappella.errors import EngineBroke, EngineContextExceeded, EngineError, EngineGaveUp, EngineRejected

# vLLM names the parameter that does not fit, others have a code or a type of error; messages change all the time.
_CONTEXT_PARAMS = ("input_tokens", "max_tokens", "max_completion_tokens", "input_text")
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")

_REQUEST_TYPES = frozenset(
    "badrequesterror bad_request_error validationerror vllmvalidationerror invalid_request_error"
    " unprocessableentityerror".split()
) | {"bad request", "unprocessable entity"}
_OUR_KEY = (401, 403)
"""Statuses that are about our API key to the server."""
_NOT_THE_REQUEST = (*_OUR_KEY, 408, 409, 425, 429)
"""Statuses of the 4xx kind that another moment, or another key of ours, would not have had."""
_GAVE_UP = "Internal server error"
"""All that vLLM says of an answer that it ends as an error of its own, and not because its core is ill: a 500."""

# A slip in the server's own code, as its words show: they tell a client nothing.
_INTERNALS = re.compile(
    r"\w+\(\) (?:got|takes|missing)\b|object (?:has no attribute|is not (?:iterable|callable|subscriptable))"
    r"|Traceback \(most recent|NoneType|\bself\b'|vllm\.\w+\.\w+"
)
_UNREADABLE = "the engine cannot read a field of this request"
_TOO_MUCH = "the engine gave up on the form of this answer: its schema, pattern, grammar or choices are too much for it"
_FORMS = ("response_format", "structured_outputs", "tools", "text", "output_config")


def is_server_fault(status_code: int) -> bool:
    """Whether the status reports a fault of the server, or of our API key to it, and not of the client's request."""
    return not (200 <= status_code < 300 or 400 <= status_code < 500) or status_code in _OUR_KEY


def from_reply(status_code: int, reply: bytes) -> EngineError:
    """The error for a reply that is none of success. The text of a server's own fault is left out: clients must not see it."""
    error = _error_object(reply)
    if status_code >= 500 and (status_code != 500 or error is None or not _blames_request(error)):
        gave_up = status_code == 500 and error is not None and error["message"] == _GAVE_UP
        return (EngineGaveUp if gave_up else EngineBroke)(f"the engine answered {status_code}: see its log")
    if status_code in _OUR_KEY:
        return EngineBroke(f"the server refused our key ({status_code})")
    if error is None:
        return EngineBroke(f"the engine answered {status_code} with no readable reason")
    return _rejected(error, 400 if status_code == 500 else status_code)


def in_stream(error: object) -> EngineError:
    """The error for an `error` object that came as an event of a stream."""
    if not isinstance(error, dict):
        return EngineBroke("the stream holds an error without a message")
    status_code = _status(error)
    if status_code is not None and 400 <= status_code < 500 and status_code not in _OUR_KEY:
        return _rejected(error, status_code)
    if status_code in (500, None) and _blames_request(error):
        return _rejected(error, 400)
    gave_up = status_code == 500 and error.get("message") == _GAVE_UP
    return (EngineGaveUp if gave_up else EngineBroke)(f"the engine failed ({status_code or 'no status'}): see its log")


def given_up(error: EngineGaveUp, request: bytes) -> EngineError:
    """The error for an answer that the server gave up: the request's fault if its body sets a form of the answer.

    vLLM gives up where a grammar refuses a token, or is too large for its matcher.
    """
    try:
        fields = orjson.loads(request)
    except orjson.JSONDecodeError:
        return error
    return EngineRejected(_TOO_MUCH, 400) if any(fields.get(name) for name in _FORMS) else error


def blames_request(error: EngineError) -> bool:
    """Whether the engine refused what the request holds; a prompt that is too long is another matter."""
    is_refusal = isinstance(error, EngineRejected) and not isinstance(error, EngineContextExceeded)
    return is_refusal and may_blame_request(error.status_code)


def may_blame_request(status_code: int) -> bool:
    """Whether a refusal with this status is for what the request holds."""
    return 400 <= status_code < 500 and status_code not in _NOT_THE_REQUEST


def readable(reply: bytes) -> bytes:
    """A refusal as clients may read it: without words about the server's own code."""
    error = _error_object(reply)
    if error is None or not _INTERNALS.search(str(error.get("message"))):
        return reply
    body = orjson.loads(reply)
    body["error"] = {**error, "message": _UNREADABLE}
    return orjson.dumps(body)


def _error_object(reply: bytes) -> dict[str, Any] | None:
    try:
        error = orjson.loads(reply)["error"]
        return error if "message" in error and isinstance(error, dict) else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _blames_request(error: dict[str, Any]) -> bool:
    """By the type, or the code, where the status does not say it."""
    return any(str(error.get(name)).lower() in _REQUEST_TYPES for name in ("type", "code"))


def _status(error: dict[str, Any]) -> int | None:
    code = error.get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _rejected(error: dict[str, Any], status_code: int) -> EngineRejected:
    message, codes = str(error.get("message", "no reason")), (error.get("code"), error.get("type"))
    if status_code == 400 and (error.get("param") in _CONTEXT_PARAMS or any(code in _CONTEXT_CODES for code in codes)):
        return EngineContextExceeded(message, status_code)
    return EngineRejected(_UNREADABLE if _INTERNALS.search(message) else message, status_code)
