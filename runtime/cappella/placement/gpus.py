"""This machine's GPUs as NVIDIA's driver reports them; see NVML's reference for the calls."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pynvml

from cappella.errors import ConfigError

PCI_DEVICES = Path("/sys/bus/pci/devices")
MIN_CUDA = 13000
"""The CUDA version of vllm 0.32's wheels, 13.0, in the driver's notation."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The current state of one GPU. `index` is in bus order; `numa_node` is None on machines with one node."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    busy_percent: int | None
    numa_node: int | None
    linked: frozenset[int]
    capability: tuple[int, int] | None = None


def read() -> Sequence[Gpu]:
    """The GPUs visible by CUDA_VISIBLE_DEVICES. Raises ConfigError for a missing or outdated driver, and for instances of MIG."""
    with _nvml():
        _require_driver()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        buses = {pynvml.nvmlDeviceGetPciInfo(handle).busId: index for index, handle in enumerate(handles)}
        gpus = [_gpu(index, handle, buses) for index, handle in enumerate(handles)]
        visible = [gpu for gpu in gpus if _visible(gpu)]
        _refuse_mig(gpu for gpu in visible if _is_divided(handles[gpu.index]))
    return visible


def free_bytes(indices: Sequence[int]) -> int:
    """Free memory of the GPU with the least, among these."""
    with _nvml():
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
        return min(int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles)


def used_bytes() -> Mapping[int, int]:
    """GPU memory by process id, over all GPUs. In some containers the driver does not list all processes."""
    out: dict[int, int] = {}
    with _nvml():
        for index in range(pynvml.nvmlDeviceGetCount()):
            for each in pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index)):
                out[each.pid] = out.get(each.pid, 0) + (each.usedGpuMemory or 0)
    return out


@contextmanager
def _nvml() -> Iterator[None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        hint = "Install NVIDIA's driver, or repair it: nvidia-smi must work"
        raise ConfigError("this machine's GPUs", f"the driver does not answer ({error})", hint) from error
    try:
        yield
    except pynvml.NVMLError as error:
        raise ConfigError("this machine's GPUs", f"the driver stopped answering ({error})", "See nvidia-smi") from error
    finally:
        pynvml.nvmlShutdown()


def _require_driver() -> None:
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    if cuda < MIN_CUDA:
        driver = pynvml.nvmlSystemGetDriverVersion()
        problem = f"driver {driver} supports CUDA {cuda // 1000}.{cuda % 1000 // 10}, and vllm 0.32 needs 13.0"
        raise ConfigError("this machine's GPUs", problem, "Install a newer driver (580 or later)")


def _refuse_mig(divided: Iterable[Gpu]) -> None:
    """A plan would have the memory of the whole GPU, and an engine that of one instance."""
    hint = "Turn MIG off (nvidia-smi -mig 0), or name other GPUs in CUDA_VISIBLE_DEVICES"
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if "MIG-" in named:
        raise ConfigError("this machine's GPUs", f"CUDA_VISIBLE_DEVICES names an instance of MIG ({named})", hint)
    for gpu in divided:
        problem = f"GPU {gpu.index} ({gpu.name}) is divided into instances of MIG, on which nothing can be planned"
        raise ConfigError("this machine's GPUs", problem, hint)


def _is_divided(handle: object) -> bool:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        # Most kinds cannot be divided.
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _gpu(index: int, handle: object, buses: dict[str, int]) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        total_bytes=memory.total,
        free_bytes=memory.free,
        busy_percent=_busy_percent(handle),
        numa_node=_numa_node(pynvml.nvmlDeviceGetPciInfo(handle).busId),
        linked=frozenset(_linked(handle, buses)),
        capability=pynvml.nvmlDeviceGetCudaComputeCapability(handle),
    )


def _busy_percent(handle: object) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:
        # Not every kind reports it.
        return None


def _numa_node(bus: str) -> int | None:
    """The NUMA node from sysfs, whose bus names have four-digit domains; it reports -1 if there is only one node."""
    domain, _, rest = bus.lower().partition(":")
    path = PCI_DEVICES / f"{domain[-4:]}:{rest}" / "numa_node"
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _linked(handle: object, buses: dict[str, int]) -> Iterator[int]:
    """GPUs at the other end of an NVLink; all GPUs if that is a switch."""
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            bus = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId
        except pynvml.NVMLError:
            return
        yield from [buses[bus]] if bus in buses else buses.values()


def _visible(gpu: Gpu) -> bool:
    """CUDA_VISIBLE_DEVICES lists indices or prefixes of UUIDs; if it is unset, all GPUs are visible."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return True
    return any(
        part == str(gpu.index) or (part.startswith("GPU-") and gpu.uuid.startswith(part)) for part in named.split(",")
    )
