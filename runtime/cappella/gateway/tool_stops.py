"""A model's own reply on /v1/messages that calls a tool says so: engines say `end_turn` for a call of a named one."""

from typing import Any

from cappella.gateway.reply_lines import ReplyLines
from cappella.gateway.usage_report import Filter

_ENDED = ("end_turn", "stop")


class ToolStops(ReplyLines):
    """Makes `tool_use` of the reason why a reply that has such a block ended, in one JSON object or in events.

    Agents call a tool only for this reason.
    """

    def __init__(self, inner: Filter) -> None:
        super().__init__(inner)
        self._calls = False

    def may_change(self, line: bytes) -> bool:
        return b'"tool_use"' in line or (self._calls and b'"stop_reason"' in line)

    def change(self, value: dict[str, Any]) -> bool:
        blocks = [value.get("content_block"), *_listed(value.get("content"))]
        self._calls = self._calls or any(isinstance(each, dict) and each.get("type") == "tool_use" for each in blocks)
        end = value.get("delta") if value.get("type") == "message_delta" else value
        if not self._calls or not isinstance(end, dict) or end.get("stop_reason") not in _ENDED:
            return False
        end["stop_reason"] = "tool_use"
        return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
