"""CPU time of an engine's core, from the kernel: a core in one long step reports nothing, but it computes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def core_seconds(group: int) -> float:
    """CPU seconds so far of the processes that the server in a process group has started, such as its core.

    The group's leader, its guardian, and the server itself, the leader's child, are left out: they also work while a
    core hangs.
    """
    return sum(seconds for pid, parent, of, seconds in _processes() if of == group and group not in (pid, parent))


def _processes() -> Iterator[tuple[int, int, int, float]]:
    """The id, the parent, the group and the CPU seconds of every process."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            # The process may have ended meanwhile.
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                yield int(entry.name), int(fields[1]), int(fields[2]), ticks / TICKS_PER_S
