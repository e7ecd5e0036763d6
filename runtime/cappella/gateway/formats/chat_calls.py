"""Tool calls in replies of chat completions: of functions, and of tools that take a text."""

from collections.abc import Collection, Iterator, Sequence

from cappella.gateway.formats import text_tools
from cappella.types import Json, ToolCall


def whole(call: ToolCall, texts: Collection[str]) -> Json:
    """A complete call; the tools named in `texts` take a text."""
    if call.name in texts:
        custom = {"name": call.name, "input": text_tools.text_of(call.arguments)}
        return {"id": call.id, "type": "custom", "custom": custom}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class CallPieces:
    """The pieces of a streamed reply's calls. The text of a tool in `texts` is one piece: it is known at its end only."""

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = texts
        self._held: ToolCall | None = None

    def of(self, calls: Sequence[ToolCall]) -> Iterator[Json]:
        """What a client gets now."""
        for call in calls:
            if self._held and self._held.index == call.index:
                self._held = self._held.joined(call)
                continue
            yield from self.rest()
            if call.name in self._texts:
                self._held = call
                head = {"index": call.index, "id": call.id, "type": "custom"}
                yield {**head, "custom": {"name": call.name, "input": ""}}
            else:
                yield _piece(call)

    def rest(self) -> Iterator[Json]:
        """The text that is held back: its call has ended."""
        if held := self._held:
            self._held = None
            yield {"index": held.index, "custom": {"input": text_tools.text_of(held.arguments)}}


def _piece(call: ToolCall) -> Json:
    """A piece of a call: only the first has id, type and name."""
    function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
    head = {"id": call.id, "type": "function"} if call.id else {}
    return {"index": call.index, **head, "function": function}
