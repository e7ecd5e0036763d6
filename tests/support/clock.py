"""A clock that tests advance, so that they neither wait nor depend on the machine's speed."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from support.fake_engines import eventually

T = TypeVar("T")


class Clock:
    """The clock of the process, which event loops use too."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        true = time.monotonic
        patch.setattr(time, "monotonic", lambda: true() + self._ahead_s)

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds

    async def skip(self, seconds: float, work: Coroutine[Any, Any, T], once: Callable[[], bool]) -> T:
        """The result of `work`, during which the clock is advanced by `seconds` as soon as `once` holds."""
        task = asyncio.create_task(work)
        try:
            assert await eventually(once)
            self._ahead_s += seconds
            return await task
        finally:
            task.cancel()
