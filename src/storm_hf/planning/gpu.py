"""GPUs by name: memory, its bandwidth and arithmetic, and whether a plan fits."""

import re
from dataclasses import dataclass

from storm_hf.errors import ConfigurationError
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND


GIB = 2**30
_RESERVED = GIB  # about what the driver and the allocator keep for themselves
# From the vendors' data sheets, as those of arithmetic.
MEMORY_GIB = {
    "NVIDIA A100-SXM4-40GB": 40,
    "NVIDIA A100-PCIE-40GB": 40,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA A100 80GB PCIe": 80,
    "NVIDIA H100 80GB HBM3": 80,
    "NVIDIA H100 PCIe": 80,
    "NVIDIA H100 NVL": 94,
    "NVIDIA H200": 141,
    "NVIDIA H200 NVL": 141,
    "NVIDIA GH200 480GB": 96,
    "NVIDIA B200": 180,
    "NVIDIA L4": 24,
    "NVIDIA L40S": 48,
    "NVIDIA A10": 24,
    "NVIDIA GeForce RTX 4090": 24,
    "NVIDIA GeForce RTX 3090": 24,
}
# Bytes per second of the memory, from the same data sheets.
BYTES_PER_SECOND = {
    "NVIDIA A100-SXM4-40GB": 1555e9,
    "NVIDIA A100-PCIE-40GB": 1555e9,
    "NVIDIA A100-SXM4-80GB": 2039e9,
    "NVIDIA A100 80GB PCIe": 1935e9,
    "NVIDIA H100 80GB HBM3": 3350e9,
    "NVIDIA H100 PCIe": 2000e9,
    "NVIDIA H100 NVL": 3900e9,
    "NVIDIA H200": 4800e9,
    "NVIDIA H200 NVL": 4800e9,
    "NVIDIA GH200 480GB": 4000e9,
    "NVIDIA B200": 8000e9,
    "NVIDIA L4": 300e9,
    "NVIDIA L40S": 864e9,
    "NVIDIA A10": 600e9,
    "NVIDIA GeForce RTX 4090": 1008e9,
    "NVIDIA GeForce RTX 3090": 936e9,
}
_SIZES_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180)


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Args:
        name (`str`):
            As the driver calls it.
        memory_gib (`int`):
            Its memory.
        flops_per_second (`float`):
            Dense 16-bit FLOPs per second.
        bytes_per_second (`float`):
            Bytes that its memory reads or writes per second.
    """

    name: str
    memory_gib: int
    flops_per_second: float
    bytes_per_second: float

    def fits(self, num_bytes: int) -> bool:
        """Return True if there is room for `num_bytes`, beside what the driver and the allocator keep."""
        return num_bytes + _RESERVED <= self.memory_gib * GIB


def find_gpu(name: str) -> Gpu:
    """Find a GPU by its name or a part of it, such as `h100`; whole words come first, so that `a10` is no A100.

    Raises:
        ConfigurationError: If none is called so.
    """
    wanted = name.strip().casefold()
    words = re.compile(rf"\b{re.escape(wanted)}\b")
    whole_words = [full_name for full_name in MEMORY_GIB if words.search(full_name.casefold())]
    parts = [full_name for full_name in MEMORY_GIB if wanted in full_name.casefold()]
    if wanted and (found := [*whole_words, *parts]):
        full_name = found[0]
        return Gpu(full_name, MEMORY_GIB[full_name], PEAK_FLOPS_PER_SECOND[full_name], BYTES_PER_SECOND[full_name])
    known = ", ".join(full_name.removeprefix("NVIDIA ") for full_name in MEMORY_GIB)
    raise ConfigurationError(f"Expected a part of the name of a known GPU, got {name!r}. Known are: {known}.")


def verdict(num_bytes: int, gpu: Gpu | None = None) -> str:
    """Say whether a process of `num_bytes` fits a GPU, or which sizes it fits."""
    peak = f"{num_bytes / GIB:.1f}"
    if gpu is None:
        enough = next((size for size in _SIZES_GIB if num_bytes + _RESERVED <= size * GIB), None)
        return f"{peak} GiB per process: " + (f"fits GPUs from {enough} GiB up" if enough else "fits no single GPU")
    if gpu.fits(num_bytes):
        return f"{peak} of {gpu.memory_gib} GiB: fits"
    reason = ", as driver and allocator keep about 1 GiB" if num_bytes <= gpu.memory_gib * GIB else ""
    return f"{peak} of {gpu.memory_gib} GiB: does not fit{reason}"
