"""GPUs by name: one table, read as people, clouds and NVIDIA's driver write them."""

import pytest

from cappella.errors import ConfigError
from cappella.placement import gpu_kinds, machine

GIB = 1 << 30
# What `pynvml.nvmlDeviceGetName` gives, and what people write.
NAMES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": "H100-PCIe",
    "NVIDIA H200": "H200",
    "NVIDIA B200": "B200",
    "NVIDIA A100-SXM4-80GB": "A100-80",
    "NVIDIA A100 80GB PCIe": "A100-80",
    "NVIDIA A100-PCIE-40GB": "A100-40",
    "NVIDIA GeForce RTX 4090": "4090",
    "NVIDIA GeForce RTX 3090": "3090",
    "NVIDIA RTX A6000": "A6000",
    "NVIDIA RTX 6000 Ada Generation": "6000-Ada",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "PRO-6000",
    "NVIDIA L40S": "L40S",
    "NVIDIA L4": "L4",
    "NVIDIA A10G": "A10G",
    "Tesla T4": "T4",
    "Tesla V100-SXM2-32GB": "V100-32",
    "h100": "H100",
    "A100-80GB": "A100-80",
    "rtx4090": "4090",
}
UNKNOWN = ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 D", "A100", "24", "", "H1000", "4090x2"]


@pytest.mark.parametrize(("text", "name"), NAMES.items())
def test_a_kind_has_many_names(text: str, name: str) -> None:
    kind = gpu_kinds.named(text)
    assert kind
    assert kind.name == name


@pytest.mark.parametrize("text", UNKNOWN)
def test_another_kind_is_not_taken_for_a_known_one(text: str) -> None:
    assert gpu_kinds.named(text) is None


@pytest.mark.parametrize("kind", gpu_kinds.KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_read_by_its_name_alone_and_counted(kind: gpu_kinds.GpuKind) -> None:
    assert gpu_kinds.named(kind.name) is kind
    for text, count in ((kind.name, 1), (f"3x{kind.name.lower()}", 3), (f"{kind.name} + {kind.name}", 2)):
        found = machine.described(text).devices
        assert [(each.total_bytes, each.kind) for each in found] == [(kind.total_bytes, kind)] * count
    # A table of plausible sizes and speeds: a slip of a unit would show.
    assert 14 * GIB < kind.total_bytes < 180 * GIB
    assert 3e11 <= kind.bytes_per_s <= 8e12
    assert 5e13 < kind.flops < 3e15


def test_named_and_sized_gpus_mix() -> None:
    found = machine.described("1xH100+1x24GiB").devices
    assert [(each.kind and each.kind.name, round(each.total_bytes / GIB, 2)) for each in found] == [
        ("H100", 79.19),
        (None, 24.0),
    ]
    assert [each.capability for each in found] == [(9, 0), None]
    assert [each.index for each in machine.described("2xL4,4090").devices] == [0, 1, 2]


def test_a_name_that_stands_for_two_is_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"'A100' is not .* A100-80, A100-40"):
        machine.described("A100")
