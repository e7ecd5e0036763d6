"""The devices that models are placed on: those of this machine, or of a described one."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cappella.config.fields import Bytes
from cappella.errors import ConfigError
from cappella.placement import gpus
from cappella.placement.gpus import Gpu

_GPUS = re.compile(r"(?:(\d+)x)?(\d.*)")
_BYTES = TypeAdapter(Bytes)
MAX_GPUS = 64


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or the machine's memory. `index` is CUDA's; `free_bytes` are available; `numa_node` is the GPU's."""

    name: str
    index: int
    total_bytes: int
    free_bytes: int
    numa_node: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """`devices` has linked GPUs side by side, because models are split over neighbours first.

    `slow_in_16_bits` is a CPU that computes several times faster in float32.
    """

    devices: Sequence[Device]
    gpu: bool
    slow_in_16_bits: bool = False

    def numa_nodes(self, indices: Sequence[int]) -> Sequence[int]:
        """The NUMA node of each of these GPUs; empty if there is only one, or without numactl."""
        nodes = {device.index: device.numa_node for device in self.devices}
        wanted = [node for node in (nodes[index] for index in indices) if node is not None]
        several = len(set(nodes.values())) > 1 and len(wanted) == len(indices)
        return wanted if several and shutil.which("numactl") else ()

    def limited(self, memory_bytes: int) -> "Machine":
        """The same machine with at most this much available on each device."""
        devices = [replace(each, free_bytes=min(each.free_bytes, memory_bytes)) for each in self.devices]
        return replace(self, devices=devices)


def described(text: str) -> Machine:
    """A machine with the GPUs of a text such as `2x24GiB` or `24GiB,80GiB`. Raises ConfigError."""
    devices: list[Device] = []
    for part in text.split(","):
        count, size_bytes = _described_part(text, part.strip())
        devices += [Device(f"GPU {len(devices) + n}", len(devices) + n, size_bytes, size_bytes) for n in range(count)]
    return Machine(devices, gpu=True)


def _described_part(text: str, part: str) -> tuple[int, int]:
    """The number of GPUs, and the memory of each."""
    matched = _GPUS.fullmatch(part)
    if matched and matched[2].isdecimal():
        raise ConfigError(f"--gpus {text}", f"{matched[2]} has no unit", f"Write {matched[1] or 1}x{matched[2]}GiB")
    try:
        count, size_bytes = (int(matched[1] or 1), _BYTES.validate_python(matched[2])) if matched else (0, 0)
    except ValidationError:
        count, size_bytes = 0, 0
    if not 1 <= count <= MAX_GPUS or not size_bytes:
        problem = f"{part!r} is not a number of GPUs and their memory"
        raise ConfigError(f"--gpus {text}", problem, "Write 2x24GiB, or 24GiB,48GiB for different ones")
    return count, size_bytes


def own() -> Machine:
    """This machine: its GPUs, or its memory if it has no GPU."""
    return own_gpus() if has_gpu() else own_memory()


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def own_gpus() -> Machine:
    """This machine's GPUs, with linked ones side by side. Raises ConfigError if they cannot be used."""
    visible = gpus.read()
    if not visible:
        problem = "CUDA_VISIBLE_DEVICES hides all of them"
        raise ConfigError("this machine's GPUs", problem, "Unset it, or name an existing GPU")
    ordered = sorted(visible, key=lambda gpu: (min({gpu.index, *gpu.linked}), gpu.index))
    devices = [Device(f"GPU {g.index}", g.index, g.total_bytes, g.free_bytes, g.numa_node) for g in ordered]
    return Machine(devices, gpu=True)


def gpus_now() -> Sequence[Gpu]:
    """The current state of the GPUs; empty without any, or if the driver does not answer."""
    try:
        return gpus.read() if has_gpu() else ()
    except ConfigError:
        return ()


def own_memory() -> Machine:
    """This machine's memory; free is what new processes can use without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    device = Device("memory", 0, total, available)
    return Machine([device], gpu=False, slow_in_16_bits=is_slow_in_16_bits(Path("/proc/cpuinfo").read_text()))


def is_slow_in_16_bits(cpuinfo: str) -> bool:
    """Whether an x86 processor lacks AVX-512, without which PyTorch multiplies 16-bit matrices by plain loops.

    SmolLM2-135M on AVX2 read 500 tokens in 13.3 s of one core in bfloat16, and in 2.2 s in float32.
    """
    flags = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), None)
    return flags is not None and "avx512f" not in flags
