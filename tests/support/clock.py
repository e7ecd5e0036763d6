"""A clock that a test puts forward, so that nothing is waited for and a busy machine changes nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from support.fake_engines import eventually

T = TypeVar("T")


class Clock:
    """That of the process: event loops go by it too."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        true = time.monotonic
        patch.setattr(time, "monotonic", lambda: true() + self._ahead_s)

    async def skip(self, seconds: float, work: Coroutine[Any, Any, T], once: Callable[[], bool]) -> T:
        """What comes of some work in which so much time passes at one moment: once a condition holds."""
        task = asyncio.create_task(work)
        try:
            assert await eventually(once)
            self._ahead_s += seconds
            return await task
        finally:
            task.cancel()
