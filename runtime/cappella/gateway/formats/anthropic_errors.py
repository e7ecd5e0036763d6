"""An error as Anthropic's API tells it."""

from collections.abc import Mapping
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def error_body(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error, given in OpenAI's form, in Anthropic's, with what there is besides."""
    kind = _TYPES.get(status, "api_error")
    return {"type": "error", "error": {**error, "type": kind, "message": error["message"]}}
