"""Circuit breaker of one server: counts calls that break, under all the names that the server has."""

import time

MAX_CONSECUTIVE_FAILURES = 5


class CircuitBreaker:
    """Open after MAX_CONSECUTIVE_FAILURES calls in a row broke; a successful probe half-opens it.

    `last_output_at` (`time.monotonic`) is when the last piece of any answer came. `launch` numbers the server's
    processes: calls of an earlier one do not count. `failed_recoveries` counts how often the breaker was half-opened
    since the last call that succeeded.
    """

    def __init__(self) -> None:
        self.last_output_at = time.monotonic()
        self.launch = 0
        self.failed_recoveries = 0
        self._failures = 0

    def begin_launch(self) -> None:
        """Reset for another process of the server."""
        self.launch += 1
        self.failed_recoveries = self._failures = 0
        self.record_output()

    def record_output(self) -> None:
        self.last_output_at = time.monotonic()

    def record_call(self, succeeded: bool, launch: int) -> None:
        """Count a call that is over; `launch` is the one in which it began."""
        if launch != self.launch:
            return
        self._failures = 0 if succeeded else self._failures + 1
        self.failed_recoveries = 0 if succeeded else self.failed_recoveries

    @property
    def is_open(self) -> bool:
        """Whether the next call would most likely break, too."""
        return self._failures >= MAX_CONSECUTIVE_FAILURES

    def half_open(self) -> None:
        """Let calls through again; the first that breaks opens it."""
        self._failures = MAX_CONSECUTIVE_FAILURES - 1
        self.failed_recoveries += 1
