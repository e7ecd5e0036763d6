"""What uses this machine's GPUs now, in words for an operator whose config does not fit beside it."""

from pathlib import Path

from cappella.errors import ConfigError
from cappella.placement import gpus
from cappella.placement.machine import Machine

GIB = 1 << 30
PROC = Path("/proc")
LEAST_BYTES = GIB
"""Less than this in use on a GPU, as by a desktop, is not worth a note."""
MAX_NAMED = 4


def notes(machine: Machine) -> list[str]:
    """One line for each GPU of which other processes hold much; empty if none do."""
    busy = [each for each in machine.devices if each.total_bytes - each.free_bytes >= LEAST_BYTES]
    if not busy:
        return []
    holders = _holders()
    return [
        f"{each.name}: {(each.total_bytes - each.free_bytes) / GIB:.1f} of {each.total_bytes / GIB:.1f} GiB are in use{holders}."
        for each in busy
    ]


def _holders() -> str:
    """The processes with the most GPU memory; the driver does not name those of other containers."""
    try:
        sizes = gpus.used_bytes()
    except ConfigError:
        return ""
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:MAX_NAMED]
    named = [f"{_name(pid)} (process {pid}) {size / GIB:.1f}" for pid, size in largest if size]
    return f", on all GPUs together by {', '.join(named)}" if named else ""


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "unknown"
