"""Authentication, model permissions and rate limits by API key, for one gateway process."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from cappella.auth.keys import Key, KeyStore, KeyUsage, Scope
from cappella.errors import Forbidden, RateLimited, Unauthorized

FLUSH_S = 5.0
READERS = 4
"""Threads for key look-ups, so that a slow or locked file delays no other requests."""

logger = logging.getLogger("cappella")


class Gatekeeper:
    """Checks requests against a key store; without a store, everything is permitted."""

    def __init__(self, store: KeyStore | None) -> None:
        self._store = store
        self._readers = ThreadPoolExecutor(READERS, "keys")
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._usage: dict[str, KeyUsage] = {}

    async def authenticate(self, authorization: str | None, api_key: str | None, *scopes: Scope) -> Key | None:
        """The key in `Authorization: Bearer` or `x-api-key`; None without a key store.

        The key needs one of the `scopes`. Raises Unauthorized and Forbidden.
        """
        if self._store is None:
            return None
        text = api_key or (authorization or "").removeprefix("Bearer ").strip()
        if not text:
            raise Unauthorized("This server requires a key: Authorization: Bearer ck_...")
        key = await asyncio.get_running_loop().run_in_executor(self._readers, self._store.find, text)
        if key is None:
            raise Unauthorized("This key does not exist or was revoked.")
        if not set(scopes) & set(key.scopes):
            raise Forbidden(f"The key {key.name} has no scope {' or '.join(scopes)}.", "scope_missing")
        return key

    async def admit(self, key: Key | None, models: Iterable[str]) -> None:
        """Check and count a request that calls `models`. Raises Forbidden and RateLimited."""
        if key is None:
            return
        for model in models:
            if not key.may_call(model):
                raise Forbidden(f"The key {key.name} may not call {model}.", "model_not_allowed")
        if key.tokens_per_minute and not await self._limiter.test(*_tokens(key)):
            raise await self._limited(key, "tokens", *_tokens(key))
        if key.requests_per_minute and not await self._limiter.hit(*_requests(key)):
            raise await self._limited(key, "requests", *_requests(key))
        self._usage_of(key).requests += 1

    async def count_tokens(self, key: Key | None, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of a finished request. Those over the limit count too, and delay the next request."""
        if key is None:
            return
        usage = self._usage_of(key)
        usage.prompt_tokens += prompt_tokens
        usage.completion_tokens += completion_tokens
        if key.tokens_per_minute:
            # The limiter does not count a hit that costs more than remains.
            remaining = (await self._limiter.get_window_stats(*_tokens(key))).remaining
            if cost := min(remaining, prompt_tokens + completion_tokens):
                await self._limiter.hit(*_tokens(key), cost=cost)

    async def write_usage(self) -> None:
        """Write the usage to the store every few seconds until cancelled, then once more."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                usage, self._usage = self._usage, {}
                if not await asyncio.to_thread(self._write, usage):
                    self._restore(usage)
        finally:
            self._write(self._usage)

    def _write(self, usage: Mapping[str, KeyUsage]) -> bool:
        try:
            if self._store is not None and usage:
                self._store.add(usage)
        except sqlite3.Error as error:
            logger.warning("cannot write the usage of keys yet, will retry: %s", error)
            return False
        return True

    def _restore(self, usage: Mapping[str, KeyUsage]) -> None:
        for key, each in usage.items():
            self._usage.setdefault(key, KeyUsage()).add(each)

    def _usage_of(self, key: Key) -> KeyUsage:
        return self._usage.setdefault(key.id, KeyUsage())

    async def _limited(self, key: Key, what: str, item: RateLimitItemPerMinute, name: str) -> RateLimited:
        window = await self._limiter.get_window_stats(item, name)
        wait_s = max(1, round(window.reset_time - time.time()))
        return RateLimited(f"The key {key.name} has used up its {what} for this minute.", wait_s)


def _requests(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.requests_per_minute or 0), f"requests {key.id}"


def _tokens(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.tokens_per_minute or 0), f"tokens {key.id}"
