"""What one engine is, beside the client that speaks to it: what it is started with, and how long it is waited for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cappella.engines.gpu_memory import GpuMemory
from cappella.engines.start_times import StartTimes
from cappella.engines.startup import STALLED_AFTER_S


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before each new try, in turn; an engine that was ready for `stable_s` begins anew."""

    delays_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    stable_s: float = 120.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine is started with `arguments` in a private `folder`, and prints to `log`.

    `memory` is None where it computes on a CPU. A start without progress for `stalled_after_s` has hung, as has a
    running engine without a sign of life for `hung_after_s`.
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
