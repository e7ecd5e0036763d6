"""Bounds the memory of request bodies that are still arriving, or wait for their engines."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cappella.errors import MemoryFull

CALLER_SHARE = 0.5
"""The share of the memory that one caller may hold, so that its unfinished bodies do not keep others out."""
RETRY_AFTER_S = 5


class HeldBody:
    """The bytes of one body, and of what it names, that are held in memory.

    With `outlives_request` they are held until `release`, for what goes on after the request.
    """

    def __init__(self, memory: "BodyMemory", caller: str) -> None:
        self._memory = memory
        self._caller = caller
        self.size_bytes = 0
        self.outlives_request = False

    def add(self, count: int) -> None:
        """Hold `count` bytes more. Raises MemoryFull if there is no room."""
        self._memory.take(self._caller, count)
        self.size_bytes += count

    def release(self) -> None:
        """Hold none from now on: the request was admitted, or has ended."""
        self._memory.give_back(self._caller, self.size_bytes)
        self.size_bytes = 0


class BodyMemory:
    """At most `max_bytes` of bodies that are not admitted yet, and of one caller half of that."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """The bytes that are held now."""
        return self._held.total()

    @contextmanager
    def holding(self, caller: str) -> Iterator[HeldBody]:
        """The body of one request of `caller`: a key, or an address; released when this context ends, or before.

        One that outlives its request is released by whoever goes on with it.
        """
        body = HeldBody(self, caller)
        try:
            yield body
        finally:
            if not body.outlives_request:
                body.release()

    def take(self, caller: str, count: int) -> None:
        """Raises MemoryFull, and takes nothing, if there is no room."""
        if self.held + count > self.max_bytes:
            raise MemoryFull("The bodies of waiting requests fill their memory. Try again later.", RETRY_AFTER_S)
        if self._held[caller] + count > CALLER_SHARE * self.max_bytes:
            raise MemoryFull("The bodies of your waiting requests fill your share of memory.", RETRY_AFTER_S)
        self._held[caller] += count

    def give_back(self, caller: str, count: int) -> None:
        """Undo `take`."""
        self._held[caller] -= count
        if not self._held[caller]:
            del self._held[caller]
