"""Properties of the machine: arithmetic, memory, cores that can read videos meanwhile."""

import os
import resource
import sys
from typing import Any

import torch


_MOST_WORKERS = 8  # for each process that trains
# Dense bf16 FLOPs per second, by the name that the driver gives the device. From the vendors' data sheets, of which some print
# twice as much, for sparse matrices. A device that is not here, or a slice of one, gets no utilisation rather than a wrong one.
PEAK_FLOPS_PER_SECOND = {
    **dict.fromkeys(  # NVIDIA A100 Tensor Core GPU data sheet
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"), 312e12
    ),
    "NVIDIA H100 80GB HBM3": 989.4e12,  # NVIDIA H100 Tensor Core GPU data sheet, SXM
    "NVIDIA H100 PCIe": 756e12,  # the same, PCIe
    "NVIDIA H100 NVL": 835.5e12,  # the same, NVL
    "NVIDIA H200": 989.4e12,  # NVIDIA H200 Tensor Core GPU data sheet, SXM
    "NVIDIA H200 NVL": 835.5e12,  # the same, NVL
    "NVIDIA GH200 480GB": 989.4e12,  # NVIDIA GH200 Grace Hopper Superchip data sheet
    "NVIDIA B200": 2250e12,  # NVIDIA HGX B200 data sheet, one of eight
    "NVIDIA L4": 121e12,  # NVIDIA L4 data sheet
    "NVIDIA L40S": 362e12,  # NVIDIA L40S data sheet
    "NVIDIA A10": 125e12,  # NVIDIA A10 data sheet
    "NVIDIA GeForce RTX 4090": 165.2e12,  # NVIDIA Ada architecture whitepaper, sums in float32
    "NVIDIA GeForce RTX 3090": 71e12,  # NVIDIA GA102 architecture whitepaper, sums in float32
}


def known_flops_per_second(device: torch.device) -> float | None:
    """Look up the dense FLOPs per second of a device in 16-bit arithmetic; None where it is not known."""
    return PEAK_FLOPS_PER_SECOND.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def computes_in_bf16() -> bool:
    """Tell if this processor multiplies matrices in bfloat16 faster than in float32, as with AMX or AVX512-BF16."""
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 and newer
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use at a time: by tensors on a CUDA device, by the whole process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024  # macOS counts bytes, Linux KiB


def workers_to_spare() -> int:
    """Processes that can read videos beside each one that trains: none without a GPU, whose work the cores would do."""
    if not torch.cuda.is_available():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_training = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_MOST_WORKERS, max(cores // num_training - 1, 0))
