"""Requests to one model that give it the panel as its tool: `openrouter:fusion`, the hosted product's server tool."""

from collections.abc import Mapping
from typing import Any

from cappella.config import Config
from cappella.errors import RequestError
from cappella.gateway.formats.fields import SERVER_TOOL

_PATHS = ("/v1/chat/completions", "/v1/responses")
_DEFAULT = "default"


def may_ask_panel(path: str, wire: Mapping[str, Any]) -> bool:
    """Whether the request has the server tool, and its tool choice leaves room for it."""
    tools = wire.get("tools")
    if path not in _PATHS or not isinstance(tools, list):
        return False
    choice = wire.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    has_tool = any(isinstance(tool, dict) and tool.get("type") == SERVER_TOOL for tool in tools)
    return has_tool and kind in (None, "auto", "required", SERVER_TOOL)


def panel_of(config: Config) -> str:
    """The ensemble whose panel such a request asks: `default`, or the only one. Raises RequestError if there is none."""
    if _DEFAULT in config.ensembles or len(config.ensembles) == 1:
        return _DEFAULT if _DEFAULT in config.ensembles else next(iter(config.ensembles))
    has = f"has several, and none is named {_DEFAULT}" if config.ensembles else "has none"
    message = f"{SERVER_TOOL} asks the panel of an ensemble, and this config {has}"
    raise RequestError(f"{message}: {'call one by its name' if config.ensembles else 'leave the tool out'}.", "tools")
