"""The settings of one engine's process: how to start it, and how long to wait for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cappella.engines.gpu_memory import GpuMemory
from cappella.engines.start_times import StartTimes
from cappella.engines.startup import STALLED_AFTER_S


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each restart, in order. After `stable_s` of being ready the count of failures is reset."""

    delays_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    stable_s: float = 120.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """`arguments` are the server's command line, `folder` its private directory, `log` the file for its output.

    `memory` is None for an engine on a CPU. A start without progress for `stalled_after_s` counts as hung, and so does
    a running engine that generates nothing for `hung_after_s` when asked to.
    """

    arguments: Sequence[str]
    folder: Path
    log: Path
    memory: GpuMemory | None = None
    start_times: StartTimes | None = None
    backoff: Backoff = Backoff()
    hung_after_s: float = 60.0
    stalled_after_s: float = STALLED_AFTER_S
    health_interval_s: float = 1.0
