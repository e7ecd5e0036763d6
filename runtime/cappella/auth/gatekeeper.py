"""Who asks, what they may call, and how much of it: the rules of keys, for one gateway process."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from cappella.auth.keys import Key, KeyStore, Scope, Used
from cappella.errors import Forbidden, RateLimited, Unauthorized

FLUSH_S = 5.0
READERS = 4
"""Threads that look keys up: a file that is slow, or locked, holds up nobody but those who need it."""

logger = logging.getLogger("cappella")


class Gatekeeper:
    """Over a store of keys; without one, on loopback, everybody may do everything."""

    def __init__(self, store: KeyStore | None) -> None:
        self._store = store
        self._readers = ThreadPoolExecutor(READERS, "keys")
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._used: dict[str, Used] = {}

    async def who(self, authorization: str | None, api_key: str | None, *scopes: Scope) -> Key | None:
        """The key of a request: of `Authorization: Bearer`, or `x-api-key`. Raises Unauthorized and Forbidden.

        One of the `scopes` is enough. None where there are no keys.
        """
        if self._store is None:
            return None
        text = api_key or (authorization or "").removeprefix("Bearer ").strip()
        if not text:
            raise Unauthorized("This server wants a key: Authorization: Bearer ck_...")
        key = await asyncio.get_running_loop().run_in_executor(self._readers, self._store.find, text)
        if key is None:
            raise Unauthorized("There is no such key, or it was revoked.")
        if not set(scopes) & set(key.scopes):
            raise Forbidden(f"The key {key.name} has no scope {' or '.join(scopes)}.", "scope_missing")
        return key

    async def admit(self, key: Key | None, models: Iterable[str]) -> None:
        """Before a request that calls `models`. Raises Forbidden and RateLimited."""
        if key is None:
            return
        for model in models:
            if not key.may_call(model):
                raise Forbidden(f"The key {key.name} may not call {model}.", "model_not_allowed")
        if key.tokens_per_minute and not await self._limiter.test(*_tokens(key)):
            raise await self._limited(key, "tokens", *_tokens(key))
        if key.requests_per_minute and not await self._limiter.hit(*_requests(key)):
            raise await self._limited(key, "requests", *_requests(key))
        self._of(key).requests += 1

    async def count(self, key: Key | None, prompt_tokens: int, completion_tokens: int) -> None:
        """After it. What goes over the limit is counted all the same, and keeps the next request waiting."""
        if key is None:
            return
        used = self._of(key)
        used.prompt_tokens += prompt_tokens
        used.completion_tokens += completion_tokens
        if key.tokens_per_minute:
            # A hit that costs more than is left would not be counted at all.
            left = (await self._limiter.get_window_stats(*_tokens(key))).remaining
            if cost := min(left, prompt_tokens + completion_tokens):
                await self._limiter.hit(*_tokens(key), cost=cost)

    async def keep(self) -> None:
        """Write what was used into the store every few seconds, until cancelled; then once more."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                used, self._used = self._used, {}
                if not await asyncio.to_thread(self._written, used):
                    self._take_back(used)
        finally:
            self._written(self._used)

    def _written(self, used: Mapping[str, Used]) -> bool:
        try:
            if self._store is not None and used:
                self._store.add(used)
        except sqlite3.Error as error:
            logger.warning("what keys have used cannot be written yet: %s", error)
            return False
        return True

    def _take_back(self, used: Mapping[str, Used]) -> None:
        for key, each in used.items():
            self._used.setdefault(key, Used()).add(each)

    def _of(self, key: Key) -> Used:
        return self._used.setdefault(key.id, Used())

    async def _limited(self, key: Key, what: str, item: RateLimitItemPerMinute, name: str) -> RateLimited:
        window = await self._limiter.get_window_stats(item, name)
        wait_s = max(1, round(window.reset_time - time.time()))
        return RateLimited(f"The key {key.name} has used its {what} of this minute.", wait_s)


def _requests(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.requests_per_minute or 0), f"requests {key.id}"


def _tokens(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.tokens_per_minute or 0), f"tokens {key.id}"
