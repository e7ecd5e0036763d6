"""GPUs as reported by NVIDIA's driver, whose library is scripted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pynvml
import pytest

from cappella.engines import memory_use
from cappella.errors import ConfigError
from cappella.placement import gpus, machine

GIB = 1 << 30


@dataclass
class Driver:
    """Four GPUs of 24 GiB, of which 0 and 2, and 1 and 3, are linked."""

    cuda: int = 13000
    links: dict[int, list[int]] = field(default_factory=lambda: {0: [2], 2: [0], 1: [3], 3: [1]})
    broken: bool = False
    divided: frozenset[int] = frozenset()

    def calls(self) -> dict[str, Any]:
        return {
            "nvmlInit": self._init,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetCudaDriverVersion_v2": lambda: self.cuda,
            "nvmlSystemGetDriverVersion": lambda: "570.10",
            "nvmlDeviceGetCount": lambda: 4,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetPciInfo": lambda index: SimpleNamespace(busId=_bus(index)),
            "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(total=24 * GIB, free=(23 - index) * GIB),
            "nvmlDeviceGetUUID": lambda index: f"GPU-{index}{index}{index}",
            "nvmlDeviceGetName": lambda index: "NVIDIA Test",
            "nvmlDeviceGetCudaComputeCapability": lambda index: (9, 0),
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetUtilizationRates": lambda index: SimpleNamespace(gpu=7),
            "nvmlDeviceGetComputeRunningProcesses": lambda index: [
                SimpleNamespace(pid=7, usedGpuMemory=index * GIB),
                SimpleNamespace(pid=8, usedGpuMemory=None),
            ],
            "nvmlDeviceGetNvLinkState": self._state,
            "nvmlDeviceGetNvLinkRemotePciInfo": lambda index, link: SimpleNamespace(
                busId=_bus(self.links[index][link])
            ),
        }

    def _init(self) -> None:
        if self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    def _mig_mode(self, index: int) -> tuple[int, int]:
        if index == 3:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(index in self.divided), 0

    def _state(self, index: int, link: int) -> int:
        if link >= len(self.links[index]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return 1


def _bus(index: int) -> str:
    """A bus id as NVML writes it, with eight digits of domain where Linux has four."""
    return f"00000000:0{index}:00.0"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    scripted = Driver()
    for index in range(4):
        (tmp_path / f"0000:0{index}:00.0").mkdir()
        (tmp_path / f"0000:0{index}:00.0" / "numa_node").write_text(f"{index // 2}\n")
    monkeypatch.setattr(gpus, "PCI_DEVICES", tmp_path)
    for name, call in scripted.calls().items():
        monkeypatch.setattr(pynvml, name, call)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return scripted


def test_the_memory_of_a_process_is_added_up_over_gpus(driver: Driver) -> None:
    assert gpus.used_bytes() == {7: 6 * GIB, 8: 0}


def test_each_gpu_is_reported_with_its_free_memory(driver: Driver) -> None:
    found = gpus.read()
    assert [(gpu.index, gpu.name, gpu.free_bytes // GIB) for gpu in found] == [
        (0, "NVIDIA Test", 23),
        (1, "NVIDIA Test", 22),
        (2, "NVIDIA Test", 21),
        (3, "NVIDIA Test", 20),
    ]
    assert [gpu.numa_node for gpu in found] == [0, 0, 1, 1]
    assert gpus.free_bytes([1, 3]) == 20 * GIB


def test_a_machine_of_one_node_has_no_nodes_to_bind_to(driver: Driver, tmp_path: Path) -> None:
    for path in tmp_path.glob("*/numa_node"):
        path.write_text("-1")
    assert [gpu.numa_node for gpu in gpus.read()] == [None] * 4


def test_a_gpu_without_utilisation_is_planned_with(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse)
    assert {gpu.busy_percent for gpu in gpus.read()} == {None}


def test_linked_gpus_are_neighbours_in_a_plan(driver: Driver) -> None:
    assert [device.index for device in machine.own_gpus().devices] == [0, 2, 1, 3]


@pytest.mark.parametrize(
    ("numactl", "nodes"),
    [
        ("exit 0", [0, 1]),
        # A container without SYS_NICE, and one that has only the first node.
        ("exit 1", ()),
        ('test "$2" = --membind=0', ()),
        (None, ()),
    ],
)
def test_an_engine_is_bound_to_the_nodes_of_its_gpus_where_it_may_be(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numactl: str | None, nodes: Sequence[int]
) -> None:
    if numactl:
        (tmp_path / "numactl").write_text(f"#!/bin/sh\n{numactl}\n")
        (tmp_path / "numactl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine._may_bind.cache_clear()
    assert machine.own_gpus().numa_nodes([0, 2]) == nodes
    machine._may_bind.cache_clear()


def test_the_free_memory_of_a_node_is_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "NODES", tmp_path)
    (tmp_path / "node1").mkdir()
    lines = ["Node 1 MemTotal: 99 kB", "Node 1 MemFree:    40 kB", "Node 1 FilePages:   2 kB", "Node 1 Mapped: 7 kB"]
    (tmp_path / "node1" / "meminfo").write_text("\n".join(lines))
    assert (machine.node_free_bytes(1), machine.node_free_bytes(0)) == (42 * 1024, 0)


def test_instances_of_mig_are_refused_in_words(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.divided = frozenset({1})
    with pytest.raises(ConfigError, match=r"GPU 1 \(NVIDIA Test\) is divided into instances of MIG"):
        gpus.read()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert [gpu.index for gpu in gpus.read()] == [0, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-11-22")
    with pytest.raises(ConfigError, match=r"names an instance of MIG \(MIG-11-22\)"):
        gpus.read()


@pytest.fixture
def with_gpus(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)


async def test_ready_and_metrics_report_the_gpus(with_gpus: None, gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{gateway}/ready") as reply:
            found = (await reply.json())["gpus"]
        async with http.get(f"{gateway}/metrics") as reply:
            text = await reply.text()
    assert (found[0]["index"], found[0]["free_bytes"] // GIB, found[0]["linked"]) == (0, 23, [2])
    assert 'cappella_gpu_memory_free_bytes{gpu="1"}' in text


async def test_a_driver_that_stops_answering_breaks_nothing_else(with_gpus: None, driver: Driver, gateway: str) -> None:
    driver.broken = True
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/ready") as reply:
        assert (reply.status, (await reply.json())["gpus"]) == (200, [])


async def test_a_container_in_which_processes_have_no_figures_is_ready_all_the_same(
    with_gpus: None, driver: Driver, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)
    for listed in (lambda _: [own], lambda _: [], refuse):
        monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", listed)
        assert memory_use.gpu_bytes(os.getpgrp()) == 0
        assert memory_use.used_bytes({"ann": os.getpgrp()}, on_gpus=True) == {}
        async with aiohttp.ClientSession() as http, http.get(f"{gateway}/ready") as reply:
            assert (reply.status, len((await reply.json())["gpus"])) == (200, 4)


@pytest.mark.parametrize(("named", "left"), [("2,0", [0, 2]), ("GPU-33", [3]), ("0,GPU-111", [0, 1])])
def test_only_gpus_that_cuda_may_see_are_planned_with(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, named: str, left: list[int]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [gpu.index for gpu in gpus.read()] == left


def test_no_visible_gpu_is_an_error_and_not_a_cpu(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides all of them"):
        machine.own_gpus()


def test_a_driver_that_is_too_old_is_named_with_what_is_needed(driver: Driver) -> None:
    driver.cuda = 12080
    with pytest.raises(ConfigError, match=r"driver 570\.10 .* 12\.8, .* 13\.0"):
        gpus.read()


def test_a_driver_that_is_not_there_is_named(driver: Driver) -> None:
    driver.broken = True
    with pytest.raises(ConfigError, match="the driver does not answer"):
        gpus.read()
