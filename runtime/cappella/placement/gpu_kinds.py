"""NVIDIA's GPUs by name: the memory that CUDA shows, the compute capability, and the speeds of data sheets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

GIB = 1 << 30
LEAST_CAPABILITY = (7, 5)
"""Turing: CUDA 13, with which vllm 0.32 is built, has no code for older GPUs."""


@dataclass(frozen=True, slots=True)
class GpuKind:
    """One product. `total_bytes` is what CUDA shows, which is less than the memory on the box.

    `bytes_per_s` is the bandwidth of its memory, `flops` the dense matrix products in 16 bits with sums in 32.
    `pattern` matches its names: those in lower case without makers, series, forms and the unit.
    """

    name: str
    pattern: str
    total_bytes: int
    capability: tuple[int, int]
    bytes_per_s: float
    flops: float


def _kind(name: str, pattern: str, gib: float, capability: tuple[int, int], gb_per_s: int, tflops: int) -> GpuKind:
    return GpuKind(name, pattern, int(gib * GIB), capability, gb_per_s * 1e9, tflops * 1e12)


# Memory: "GPU 0 has a total capacity of ... GiB" in errors of PyTorch that many users published, or vLLM's logs; the least
# where they differ by the driver. Capability: NVIDIA's list of CUDA GPUs. Speeds: NVIDIA's data sheets, of the SXM form where
# the name says nothing else; FLOPS without sparsity, and of GeForce with sums in 32 bits.
KINDS: Sequence[GpuKind] = (
    _kind("B200", "b200(180|192)?", 178.35, (10, 0), 8000, 2250),
    _kind("H200", "h200(141)?", 139.72, (9, 0), 4800, 989),
    _kind("H100", "h100(80)?", 79.19, (9, 0), 3350, 989),
    _kind("H100-PCIe", "h100(80)?pcie(80)?", 79.19, (9, 0), 2039, 756),
    _kind("H100-NVL", "h100nvl(94)?", 93.00, (9, 0), 3938, 835),
    _kind("A100-80", "a100(pcie)?80(pcie)?", 79.25, (8, 0), 2039, 312),
    _kind("A100-40", "a100(pcie)?40(pcie)?", 39.38, (8, 0), 1555, 312),
    _kind("L40S", "l40s(48)?", 44.34, (8, 9), 864, 362),
    _kind("L40", "l40(48)?", 44.34, (8, 9), 864, 181),
    _kind("L4", "l4(24)?", 22.03, (8, 9), 300, 121),
    _kind("A40", "a40(48)?", 44.34, (8, 6), 696, 150),
    _kind("A10", "a10(24)?", 22.03, (8, 6), 600, 125),
    _kind("A10G", "a10g(24)?", 22.03, (8, 6), 600, 70),
    _kind("A6000", "a6000(48)?", 47.40, (8, 6), 768, 155),
    _kind("6000-Ada", "6000ada(48)?", 47.40, (8, 9), 960, 364),
    _kind("PRO-6000", "pro6000(96)?", 94.96, (12, 0), 1792, 503),
    _kind("5090", "5090(32)?", 31.36, (12, 0), 1792, 209),
    _kind("4090", "4090(24)?", 23.51, (8, 9), 1008, 165),
    _kind("3090", "3090(24)?", 23.56, (8, 6), 936, 71),
    _kind("T4", "t4(16)?", 14.56, (7, 5), 320, 65),
    _kind("V100-32", "v100(pcie)?32", 31.73, (7, 0), 900, 125),
    _kind("V100-16", "v100(pcie)?16", 15.77, (7, 0), 900, 125),
)
LINKED = frozenset("B200 H200 H100 H100-NVL A100-80 A100-40 V100-32 V100-16".split())
"""Kinds that several of come with NVLink between them."""
_SILENT = re.compile(
    r"nvidia|geforce|tesla|quadro|rtx|sxm\d?|hbm\de?|generation|blackwell|(workstation|server) edition|(?<=\d)gb\b|[-_ ]"
)


def named(text: str) -> GpuKind | None:
    """The kind that a person, a cloud or NVIDIA's driver names: `4090`, `RTX 4090`, `NVIDIA A100-SXM4-80GB`."""
    bare = _SILENT.sub("", text.lower())
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, bare)), None)
