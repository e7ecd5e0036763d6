"""OpenTelemetry tracing. Nothing of OpenTelemetry is imported before `open_tracer`; its environment variables are ignored."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cappella.config import Tracing
from cappella.errors import ConfigError
from cappella.sealing import variables

if TYPE_CHECKING:
    from cappella.telemetry.tracing.tracer import Tracer

REQUIRED_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common")


def require_installed() -> None:
    """Raises ConfigError if the extra `otel` is not installed."""
    for module in REQUIRED_MODULES:
        if not _is_installed(module):
            hint = "Install the extra otel (pip install 'cappella[otel]'), or remove server.tracing"
            raise ConfigError("server.tracing", f"{module} is not installed", hint)


def open_tracer(tracing: Tracing) -> "Tracer":
    """A tracer that sends to the configured collector. Raises ConfigError if the extra `otel` is not installed."""
    require_installed()
    variables.clear_otel_variables()
    from cappella.telemetry.tracing.tracer import Tracer

    return Tracer(tracing)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
