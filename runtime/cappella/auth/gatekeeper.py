"""Authentication, model permissions and rate limits by API key, for one gateway process."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from cappella.auth.keys import Key, KeyStore, KeyUsage, Scope
from cappella.errors import Forbidden, KeysUnavailable, RateLimited, Unauthorized

RETRY_S = 1.0
"""The pause after usage could not be written."""
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
        self._used = asyncio.Event()
        self._writing = asyncio.Lock()
        self._store_is_broken = False

    async def authenticate(self, authorization: str | None, api_key: str | None, *scopes: Scope) -> Key | None:
        """The key in `Authorization: Bearer` or `x-api-key`, whichever is valid; None without a key store.

        The key needs one of the `scopes`. Raises Unauthorized, Forbidden and KeysUnavailable.
        """
        if self._store is None:
            return None
        texts = [text for text in (_bearer(authorization or ""), (api_key or "").strip()) if text]
        if not texts:
            raise Unauthorized("This server requires a key: Authorization: Bearer ck_...")
        key = await self._first_found(self._store.find, texts)
        if key is None:
            raise Unauthorized("This key does not exist or was revoked.")
        if not set(scopes) & set(key.scopes):
            raise Forbidden(f"The key {key.name} has no scope {' or '.join(scopes)}.", "scope_missing")
        return key

    async def named(self, key_id: str) -> Key | None:
        """The key with this id; None if it was revoked. Raises KeysUnavailable."""
        return await self._first_found(self._store.named, [key_id]) if self._store else None

    async def _first_found(self, find: Callable[[str], Key | None], texts: Iterable[str]) -> Key | None:
        """Raises KeysUnavailable, and logs that once until the file can be read again."""
        loop, key = asyncio.get_running_loop(), None
        try:
            for text in dict.fromkeys(texts):
                if key := await loop.run_in_executor(self._readers, find, text):
                    break
            self._store_is_broken = False
            return key
        except KeysUnavailable as error:
            if not self._store_is_broken:
                logger.error("no request with a key can be answered: %s", error)
            self._store_is_broken = True
            raise KeysUnavailable("The server cannot read its keys now: see its log.") from error

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
        self._count(key.id, KeyUsage(requests=1))

    async def count_tokens(self, key: Key | None, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of a finished request. Those over the limit count too, and delay the next request."""
        if key is None:
            return
        self._count(key.id, KeyUsage(0, prompt_tokens, completion_tokens))
        if key.tokens_per_minute:
            # The limiter does not count a hit that costs more than remains.
            remaining = (await self._limiter.get_window_stats(*_tokens(key))).remaining
            if cost := min(remaining, prompt_tokens + completion_tokens):
                await self._limiter.hit(*_tokens(key), cost=cost)

    async def write_usage(self) -> None:
        """Write each use to the store as it happens, those meanwhile together, until cancelled; then what is left."""
        try:
            while True:
                await self._used.wait()
                # A write that a cancellation interrupts goes on, and the last one waits for it.
                if not await asyncio.shield(self._write_now()):
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._write_now()

    async def _write_now(self) -> bool:
        """Write what was used so far; False if that cannot be written yet."""
        async with self._writing:
            self._used.clear()
            usage, self._usage = self._usage, {}
            if await asyncio.to_thread(self._write, usage):
                return True
            for key, each in usage.items():
                self._count(key, each)
            return False

    def _write(self, usage: Mapping[str, KeyUsage]) -> bool:
        try:
            if self._store is not None and usage:
                self._store.add(usage)
        except KeysUnavailable as error:
            logger.warning("cannot write the usage of keys yet, will retry: %s", error)
            return False
        return True

    def _count(self, key_id: str, more: KeyUsage) -> None:
        self._usage.setdefault(key_id, KeyUsage()).add(more)
        self._used.set()

    async def _limited(self, key: Key, what: str, item: RateLimitItemPerMinute, name: str) -> RateLimited:
        window = await self._limiter.get_window_stats(item, name)
        wait_s = max(1, round(window.reset_time - time.time()))
        return RateLimited(f"The key {key.name} has used up its {what} for this minute.", wait_s)


def _requests(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.requests_per_minute or 0), f"requests {key.id}"


def _tokens(key: Key) -> tuple[RateLimitItemPerMinute, str]:
    return RateLimitItemPerMinute(key.tokens_per_minute or 0), f"tokens {key.id}"


def _bearer(authorization: str) -> str:
    """The key in the header. The scheme has no case, and may be missing."""
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else authorization.strip()
