"""Errors in the form of Anthropic's API."""

from cappella.gateway.reply_types import ErrorBody, MessagesError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def error_body(status: int, error: ErrorBody) -> MessagesError:
    """The error of a reply with this HTTP status, in Anthropic's form; fields that Anthropic does not know stay in it."""
    return {"type": "error", "error": {**error, "type": _TYPES.get(status, "api_error")}}
