"""Memory that engines use now, as counted by the kernel or by NVIDIA's driver."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cappella.errors import ConfigError
from cappella.placement import gpus

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(r"^Pss:\s+(\d+)", re.MULTILINE)


def used_bytes(groups: Mapping[str, int], on_gpus: bool) -> Mapping[str, int]:
    """Bytes by engine, from the process group of each; an engine whose use is unknown is left out.

    A page of memory that engines share is divided among them (PSS); on GPUs the sum over all of an engine's GPUs.
    """
    engine_of = {group: name for name, group in groups.items()}
    members = [(pid, engine_of[group]) for pid, group in _process_groups() if group in engine_of]
    by_pid = _on_gpus() if on_gpus else {pid: _resident_bytes(pid) for pid, _ in members}
    out: dict[str, int] = {}
    for pid, name in members:
        if used := by_pid.get(pid):
            out[name] = out.get(name, 0) + used
    return out


def held_bytes(group: int, on_gpus: bool) -> int:
    """Roughly the main memory (RSS) and GPU memory of a process group; cheap enough to call often."""
    resident = sum(_statm_bytes(pid) for pid, found in _process_groups() if found == group)
    return resident + (gpu_bytes(group) if on_gpus else 0)


def gpu_bytes(group: int) -> int:
    """The GPU memory of a process group; 0 if the driver does not tell."""
    return sum(used_bytes({"": group}, on_gpus=True).values())


def _statm_bytes(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _on_gpus() -> Mapping[int, int]:
    try:
        return gpus.used_bytes()
    except ConfigError:
        # The driver does not answer, or does not report processes.
        return {}


def _process_groups() -> Iterator[tuple[int, int]]:
    """The id and the group of every process."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            # The process may have ended meanwhile.
            with suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(") ")[2].split()[2])


def _resident_bytes(pid: int) -> int:
    try:
        found = _PSS.search((PROC / str(pid) / "smaps_rollup").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
