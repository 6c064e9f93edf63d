"""How much memory is free, and how many vectors may share one pass."""

import os
from pathlib import Path

import torch

LARGEST_CHUNK = 64  # beyond this, more vectors per pass bring no more speed
CPU_VECTOR_BYTES = 2 * 2**20
CPU_PASS_BYTES = 256 * 2**20


def free_bytes(device: torch.device) -> int:
    """Memory that can be taken on `device` now, in bytes; within the container's limit, where there is one."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 2**32
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return available
    return min(available, max(limit - used, 0))


def chunk_size(saved_bytes: int, vector_bytes: int, device: torch.device) -> int:
    """Vectors per pass: a power of two between 1 and `LARGEST_CHUNK`.

    They fit in a quarter of the free memory. On a CPU, vectors that leave its cache gain nothing from company, nor do
    passes that write more than `CPU_PASS_BYTES` (measured: docs/performance.md). The power of two keeps the choice, and
    so the rounding of the results, the same while free memory drifts.

    Args:
        saved_bytes: What a forward pass keeps for its backward pass.
        vector_bytes: Size of one vector.
        device: Where they are.
    """
    fitting = free_bytes(device) // 4 // max(3 * saved_bytes + 4 * vector_bytes, 1)
    if device.type == "cpu":
        alone = vector_bytes > CPU_VECTOR_BYTES
        fitting = min(fitting, 1 if alone else CPU_PASS_BYTES // max(saved_bytes, 1))
    return 1 << (max(1, min(LARGEST_CHUNK, fitting)).bit_length() - 1)
