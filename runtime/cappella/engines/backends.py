"""Which client speaks to which kind of server: the one place beside `engines/vllm*` that names vLLM's."""

from collections.abc import Iterable
from pathlib import Path

from cappella.config import RemoteModel
from cappella.engines.base import EngineServer, Seat
from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.http_engine import Address
from cappella.engines.remote import OpenAIEngine
from cappella.engines.sanitize import WELL_KNOWN, PlainText
from cappella.engines.status import EngineStatus
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import ConfigError
from cappella.types import Capabilities


def own(
    socket: Path,
    called: Iterable[str],
    status: EngineStatus,
    plain: PlainText,
    capabilities: Capabilities,
    seat: Seat | None,
) -> dict[str, EngineServer]:
    """The server that we start on a socket, under each name that it is `called` by."""
    circuit_breaker = CircuitBreaker()
    return {name: VllmEngine(socket, status, plain, capabilities, seat, name, circuit_breaker) for name in called}


def attached(name: str, model: RemoteModel) -> VllmEngine | OpenAIEngine:
    """The client of a server that is attached. Raises ConfigError for a key that cannot be read."""
    kind = VllmEngine if model.api == "vllm" else OpenAIEngine
    address = Address(model.url, key=key_of(name, model))
    return kind(address, EngineStatus(name), PlainText(WELL_KNOWN), model.capabilities, name=model.model or name)


def key_of(name: str, model: RemoteModel) -> str | None:
    """The server's API key, if it has one. Raises ConfigError."""
    if model.key_file is None:
        return None
    place, hint = f"models.{name}.key_file: {model.key_file}", "Put the server's API key into it, on one line"
    try:
        key = model.key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(place, f"cannot be read ({getattr(error, 'strerror', None) or 'no text'})", hint) from error
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(place, "holds no key", hint)
    return key
