"""Counts what a server says that answers no request: one that says so without end is given up."""

from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse

from cappella.errors import ToolServerLost

MAX_UNASKED = 10_000
"""How many messages that answer no request a server may send from one answer to the next."""
MAX_UNASKED_BYTES = 8 << 20


class Unasked:
    """What one server has said since its last answer."""

    def __init__(self) -> None:
        self._asked: set[int | str] = set()
        self._messages = self._bytes = 0

    def ask(self, message: JSONRPCMessage) -> None:
        """Note what is sent to the server: a request may be answered once."""
        if isinstance(message, JSONRPCRequest):
            self._asked.add(message.id)

    def is_answer(self, message: object) -> bool:
        """Whether this answers a request, so that counting begins anew."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id not in self._asked:
            return False
        self._asked.discard(message.id)
        self._messages = self._bytes = 0
        return True

    def count(self, size_bytes: int) -> None:
        """Count what is no answer. Raises ToolServerLost once it is too much."""
        self._messages += 1
        self._bytes += size_bytes
        if self._bytes > MAX_UNASKED_BYTES:
            raise ToolServerLost(f"it sent more than {MAX_UNASKED_BYTES >> 20} MiB that answer nothing")
        if self._messages > MAX_UNASKED:
            raise ToolServerLost(f"it sent more than {MAX_UNASKED} messages that answer nothing")
