"""The form of an error by the path that a client called: OpenAI's, Anthropic's or Ollama's."""

from typing import Any

from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.reply_types import ErrorBody

_ANTHROPIC = "/v1/messages"
OLLAMA = frozenset(f"/api/{name}" for name in "version tags show ps chat generate".split())
"""The paths of Ollama's API. Other paths below /api are our own."""


def body_for(path: str, status: int, error: ErrorBody) -> Any:
    """The body of an error reply."""
    if path == _ANTHROPIC or path.startswith(f"{_ANTHROPIC}/"):
        return error_body(status, error)
    if path in OLLAMA:
        return ollama_error(error)
    return {"error": error}


def ollama_error(error: ErrorBody) -> Any:
    """Ollama's clients read a text; what else is known stands beside it."""
    return {"error": error["message"], "code": error.get("code"), "param": error.get("param")}
