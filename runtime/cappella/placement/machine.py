"""The devices that models are placed on: those of this machine, or of a described one."""

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cappella.config.fields import Bytes
from cappella.errors import ConfigError
from cappella.placement import gpu_kinds, gpus
from cappella.placement.gpu_kinds import KINDS, GpuKind
from cappella.placement.gpus import Gpu

_GPUS = re.compile(r"(?:(\d+)\s*x\s*)?(.+)")
_SEPARATORS = re.compile(r"[,+]")
_BYTES = TypeAdapter(Bytes)
MAX_GPUS = 64
NUMACTL_TIMEOUT_S = 10
NODES = Path("/sys/devices/system/node")


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or the machine's memory. `index` is CUDA's; `free_bytes` are available; `numa_node` is the GPU's.

    `kind` and `capability` are None for what is not a GPU, or not known; `linked` is whether it has NVLink to another.
    In a cluster `index` counts over all nodes, `node` is the name of the device's node, and `index_there` its index on it.
    """

    name: str
    index: int
    total_bytes: int
    free_bytes: int
    numa_node: int | None = None
    kind: GpuKind | None = None
    capability: tuple[int, int] | None = None
    linked: bool | None = None
    node: str | None = None
    index_there: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """`devices` has linked GPUs side by side, because models are split over neighbours first. Those of a cluster are of several nodes.

    `slow_in_16_bits` is a CPU that computes several times faster in float32.
    """

    devices: Sequence[Device]
    gpu: bool
    slow_in_16_bits: bool = False

    def numa_nodes(self, indices: Sequence[int]) -> Sequence[int]:
        """The NUMA node of each of these GPUs; empty if there is only one, or if processes may not be bound to them."""
        nodes = {device.index: device.numa_node for device in self.devices}
        wanted = [node for node in (nodes[index] for index in indices) if node is not None]
        several = len(set(nodes.values())) > 1 and len(wanted) == len(indices)
        return wanted if several and all(_may_bind(node) for node in set(wanted)) else ()

    @property
    def is_cluster(self) -> bool:
        return any(device.node is not None for device in self.devices)

    @property
    def nodes(self) -> Sequence[str | None]:
        """The node of each device, in the order of `devices`."""
        return [device.node for device in self.devices]

    def node_of(self, indices: Sequence[int]) -> str | None:
        """The node of these devices, which are all on one."""
        return next(device.node for device in self.devices if device.index in indices)

    def limited(self, memory_bytes: int) -> "Machine":
        """The same machine with at most this much available on each device."""
        devices = [replace(each, free_bytes=min(each.free_bytes, memory_bytes)) for each in self.devices]
        return replace(self, devices=devices)

    def whole(self) -> "Machine":
        """The same machine with nothing in use."""
        return replace(self, devices=[replace(each, free_bytes=each.total_bytes) for each in self.devices])


@cache
def _may_bind(node: int) -> bool:
    """Whether numactl can bind a process to a node as vLLM does: a container may lack the right, or the node."""
    command = ["numactl", f"--cpunodebind={node}", f"--membind={node}", "true"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, check=False, capture_output=True, timeout=NUMACTL_TIMEOUT_S).returncode == 0
    return False


def node_free_bytes(node: int) -> int:
    """The free main memory of a NUMA node; 0 if the kernel does not tell."""
    try:
        text = (NODES / f"node{node}" / "meminfo").read_text()
    except OSError:
        return 0
    found = re.findall(r"(?:MemFree|FilePages):\s+(\d+) kB", text)
    return sum(map(int, found)) * 1024


def described(text: str) -> Machine:
    """A machine with the GPUs of a text such as `2x24GiB`, `H100` or `2xA100-80,24GiB`. Raises ConfigError."""
    devices: list[Device] = []
    for part in _SEPARATORS.split(text):
        count, size_bytes, kind = _described_part(text, part.strip())
        numbers = range(len(devices), len(devices) + count)
        devices += [described_device(index, size_bytes, kind) for index in numbers]
    if len(devices) > MAX_GPUS:
        raise ConfigError(f"--gpus {text}", f"{len(devices)} GPUs are too many", f"Plan for {MAX_GPUS} at most")
    return Machine(devices, gpu=True)


def described_device(index: int, size_bytes: int, kind: GpuKind | None) -> Device:
    """A GPU that nothing else uses."""
    if kind is None:
        return Device(f"GPU {index}", index, size_bytes, size_bytes)
    linked = kind.name in gpu_kinds.LINKED
    return Device(f"GPU {index}", index, size_bytes, size_bytes, None, kind, kind.capability, linked)


def added_device(beside: Device, index: int) -> Device:
    """One more GPU of the same kind, that nothing uses: NVLink comes with the second of a kind that has it."""
    linked = (beside.kind is not None and beside.kind.name in gpu_kinds.LINKED) or beside.linked
    return replace(beside, name=f"GPU {index}", index=index, free_bytes=beside.total_bytes, linked=linked)


def _described_part(text: str, part: str) -> tuple[int, int, GpuKind | None]:
    """The number of GPUs, the memory of each, and their kind if they are named."""
    # A name may begin with digits, as 4090 does.
    if kind := gpu_kinds.named(part):
        return 1, kind.total_bytes, kind
    matched = _GPUS.fullmatch(part)
    count, named = (int(matched[1] or 1), matched[2]) if matched else (0, "")
    if 1 <= count <= MAX_GPUS:
        if kind := gpu_kinds.named(named):
            return count, kind.total_bytes, kind
        if named.isdecimal():
            raise ConfigError(f"--gpus {text}", f"{named} has no unit", f"Write {count}x{named}GiB")
        if size_bytes := _size_bytes(named):
            return count, size_bytes, None
    problem = f"{part!r} is not a number of GPUs and their memory or name"
    raise ConfigError(f"--gpus {text}", problem, f"Write 2x24GiB, H100, or 24GiB,2xL40S for different ones; {_known()}")


def _size_bytes(text: str) -> int:
    """0 for a text that is no size."""
    try:
        return _BYTES.validate_python(text)
    except ValidationError:
        return 0


def _known() -> str:
    return f"known names: {', '.join(kind.name for kind in KINDS)}"


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
    return Machine([_device(gpu) for gpu in ordered], gpu=True)


def _device(gpu: Gpu) -> Device:
    return Device(
        f"GPU {gpu.index}",
        gpu.index,
        gpu.total_bytes,
        gpu.free_bytes,
        gpu.numa_node,
        gpu_kinds.named(gpu.name),
        gpu.capability,
        bool(gpu.linked),
    )


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
