"""Traces for those who want them: nothing of OpenTelemetry is imported before `opened`, and no environment is asked."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cappella.config import Tracing
from cappella.errors import ConfigError
from cappella.sealing import variables

if TYPE_CHECKING:
    from cappella.telemetry.tracing.tracer import Tracer

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common")


def require_installed() -> None:
    """Raises ConfigError where the extra is missing."""
    for module in NEEDED:
        if not _is_there(module):
            hint = "Install the extra otel (pip install 'cappella[otel]'), or take server.tracing out"
            raise ConfigError("server.tracing", f"{module} is not installed", hint)


def opened(tracing: Tracing) -> "Tracer":
    """A tracer that sends to the config's collector. Raises ConfigError where the extra is missing."""
    require_installed()
    variables.clear_otel_variables()
    from cappella.telemetry.tracing.tracer import Tracer

    return Tracer(tracing)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
