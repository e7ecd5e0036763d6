"""Warns in a model's own chat reply whose tokens ended while it still thought: it has no answer, and is no error."""

import re
from collections.abc import Mapping
from typing import Any

from cappella.gateway.reply_lines import ReplyLines
from cappella.gateway.usage_report import Filter

HEADER = "x-cappella-warning"
CODE = "only_thinking"
MAX_LINE_BYTES = 256 << 10
"""A longer reply, such as one with log-probabilities, passes as it comes: a reader that stalls must not fill our memory."""
WARNING = {
    "code": CODE,
    "message": "The model's tokens ended while it still thought, before an answer: raise max_completion_tokens, or set"
    " thinking_token_budget to less.",
}
_TELLING = re.compile(rb'"content":\s*"[^"]|"tool_calls":\s*\[\s*\{|"finish_reason":\s*"length"')
"""What an answer has, or a choice that ended without one."""


class OnlyThought(ReplyLines):
    """Adds a `warning` to the reply, or to the chunk of a stream that ends the choice, and a header to a whole reply."""

    def __init__(self, inner: Filter, choices: int) -> None:
        super().__init__(inner)
        self._choices = choices
        self._answered: set[int] = set()
        self._warned = False
        self._passes = False

    def feed(self, data: bytes) -> bytes:
        if self._passes:
            return self._inner.feed(data)
        shown = super().feed(data)
        if len(self._rest) <= MAX_LINE_BYTES:
            return shown
        self._passes, held, self._rest = True, self._rest, b""
        return shown + held

    def rest(self) -> bytes:
        return self._inner.rest() if self._passes else super().rest()

    @property
    def headers(self) -> Mapping[str, str]:
        """Those that a reply gets which is known as a whole."""
        return {HEADER: CODE} if self._warned else {}

    def may_change(self, line: bytes) -> bool:
        return len(self._answered) < self._choices and _TELLING.search(line) is not None

    def change(self, value: dict[str, Any]) -> bool:
        warns = False
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            index, said = choice.get("index", 0), choice.get("message") or choice.get("delta") or {}
            if said.get("content") or said.get("tool_calls"):
                self._answered.add(index)
            warns = warns or (choice.get("finish_reason") == "length" and index not in self._answered)
        if warns:
            value["warning"] = WARNING
        self._warned = self._warned or warns
        return warns
