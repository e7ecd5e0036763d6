"""The salt of a prefix cache: with it, one API key cannot find out from cached tokens what another has asked.

Set once for a request; all its tasks inherit it, so that every call of a run, the early prefill included, has the same.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from contextvars import ContextVar

_SECRET = secrets.token_bytes(32)
_salt: ContextVar[str | None] = ContextVar("cache_salt", default=None)


def use(key_id: str | None) -> None:
    """Let the calls of this task share cached prefixes only with those of the same key; None is for sharing with all."""
    _salt.set(None if key_id is None else _of(key_id))


def current() -> str | None:
    """The salt for a call made now."""
    return _salt.get()


def _of(key_id: str) -> str:
    """The same for all calls of a key while this process lives; it tells nothing of the key."""
    return urlsafe_b64encode(hmac.digest(_SECRET, key_id.encode(), hashlib.sha256)).decode().rstrip("=")
