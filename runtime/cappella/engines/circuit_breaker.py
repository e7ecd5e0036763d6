"""Circuit breaker of one server: counts requests that break, under all the names that the server has."""

import hashlib
import time

MAX_BROKEN_REQUESTS = 5


class CircuitBreaker:
    """Open after MAX_BROKEN_REQUESTS different requests broke, with none between them that succeeded.

    Then the server must be probed: only a probe that fails shows that it is ill, since anybody can repeat a request that
    breaks. `last_output_at` (`time.monotonic`) is when the last piece of any answer came. `launch` numbers the server's
    processes: calls of an earlier one do not count.
    """

    def __init__(self) -> None:
        self.last_output_at = time.monotonic()
        self.launch = 0
        self._broken: set[bytes] = set()

    def begin_launch(self) -> None:
        """Reset for another process of the server."""
        self.launch += 1
        self.close()
        self.record_output()

    def record_output(self) -> None:
        self.last_output_at = time.monotonic()

    def record_success(self, launch: int) -> None:
        """Note a call that ended well; `launch` is the one in which it began."""
        if launch == self.launch:
            self.close()

    def record_break(self, launch: int, request: bytes) -> None:
        """Count a call that broke, once for each `request` (its body)."""
        if launch == self.launch and not self.is_open:
            self._broken.add(hashlib.blake2b(request, digest_size=16).digest())

    @property
    def is_open(self) -> bool:
        """Whether only a probe can tell if the server still works."""
        return len(self._broken) >= MAX_BROKEN_REQUESTS

    def close(self) -> None:
        """Forget what broke: the server has just shown that it works."""
        self._broken.clear()
