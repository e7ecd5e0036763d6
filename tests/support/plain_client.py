"""A ready client of one scripted engine."""

from pathlib import Path

from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.engines.vllm.client import VllmEngine
from cappella.types import Capabilities

PLAIN = Sanitizer(("<|im_start|>", "<|im_end|>"), ("<think>", "</think>"))


def ready_client(name: str, socket: Path, capabilities: Capabilities = Capabilities()) -> VllmEngine:
    """A client of the engine at `socket` that takes it for ready."""
    return VllmEngine(socket, EngineStatus(name, "ready"), PLAIN, capabilities)
