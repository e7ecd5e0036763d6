"""Which client speaks to which kind of server: the one place beside `engines/vllm*` that names vLLM's."""

from collections.abc import Iterable
from pathlib import Path

from cappella.engines.base import EngineServer, Seat
from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.status import EngineStatus
from cappella.engines.vllm.client import VllmEngine
from cappella.engines.vllm.sanitize import PlainText
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
