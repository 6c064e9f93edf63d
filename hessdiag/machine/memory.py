"""How much memory is free, and how many vectors may share one pass."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hessdiag.machine.ranks import local_size, ranks

if TYPE_CHECKING:
    import torch

PACE_NUMBERS = 2**22  # of a vector by which the pace of memory is measured: beyond any cache
PACE_ROWS = 4
LARGEST_CHUNK = 64  # beyond this, more vectors per pass bring a CPU no more speed
LARGEST_CHUNK_OF_GPU = 512  # likewise
CPU_VECTOR_BYTES = 2 * 2**20
CPU_PASS_BYTES = 256 * 2**20
M_MMAP_THRESHOLD = -3  # as malloc.h has it
LARGE = 2**22  # bytes of a block that is taken from the system apart: of smaller ones, fresh pages cost a quarter more
LARGE_AT_FIRST = 2**16  # likewise while a model is loaded and tried, when memory counts for more than time
PAGE = 20 * 2**20  # bytes of a GPU's memory that an expandable segment takes and gives back at once


def free_bytes(device: "torch.device | None" = None) -> int:
    """Memory that can be taken on `device` (by default the host) now, in bytes.

    Within the limits of its container and of `ulimit -v`. What several processes of a job take from is shared alike.
    """
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) > torch.cuda.memory_allocated(device)
        return int(free) // _sharers(torch.cuda.device_count()) + (
            sum(map(_left_in_segment, _segments(device))) if cached else 0
        )
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 2**32
    together = min([available, *_left_in_groups()]) // _sharers(1)
    return min([together, *_left_of_addresses()])


def _sharers(places: int) -> int:
    """How many processes of this job take memory from the same of so many GPUs, or from this host."""
    return -(-local_size() // max(places, 1))


def _segments(device: "torch.device") -> list[dict[str, Any]]:
    """What torch's allocator has taken of a GPU, piece by piece."""
    import torch

    index = torch.cuda.current_device() if device.index is None else device.index
    return [part for part in torch.cuda.memory_snapshot() if part["device"] == index]  # type: ignore[no-untyped-call]


def _left_in_segment(segment: dict[str, Any]) -> int:
    """What can be had of a segment: all, if nothing lies in it, or what it can give back of its parts.

    Fragments between what is held serve nothing large, and the memory of recordings serves nothing else.
    """
    if any(segment.get("segment_pool_id", (0, 0))):
        return 0
    if segment.get("is_expandable", False):
        return sum(part["size"] for part in segment["blocks"] if part["state"] == "inactive" and part["size"] >= PAGE)
    return int(segment["total_size"]) if segment["allocated_size"] == segment["active_size"] == 0 else 0


def held_bytes(device: "torch.device") -> int:
    """Memory that this process holds on `device` now; 0 where the system does not say."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.memory_allocated(device))
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def pace(vector: int, device: "torch.device") -> float:
    """Seconds that linear algebra takes to read a vector of so many bytes, measured here and now, on a part of it."""
    import torch

    numbers = vector // 4
    size = max(min(numbers, PACE_NUMBERS), 1)
    rows = torch.ones(PACE_ROWS, size, dtype=torch.float32, device=device)
    times = []
    for _ in range(2):  # the first of which waits for pages
        started = time.perf_counter()
        float((rows @ rows[0]).sum())
        times.append(time.perf_counter() - started)
    return min(times) / PACE_ROWS * numbers / size


def give_back() -> None:
    """Return what was freed to the system, which the C library keeps in part: then it can be planned with."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def apart(least: int = LARGE) -> None:
    """Let the C library take large blocks from the system one by one from now on, and return each when it is freed.

    It would otherwise keep what was freed: after whole tensors have come and gone, a process held twice its need. With
    large pages it is cheap to fetch such blocks again. Torch asks for them if it has taken no memory yet, and reads
    once whether it should. Smaller blocks, which several processes have, would then take more than they need.

    Args:
        least: Bytes of such a block.
    """
    if ranks()[1] == 1:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, least)


def _left_in_groups() -> list[int]:
    """What the control groups of this process leave it: its own, and all around it; version 2, then 1."""
    found = [_left("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")]
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        lines = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            for part in (PurePosixPath(path), *PurePosixPath(path).parents):
                if part != PurePosixPath("/"):
                    found.append(_left(f"/sys/fs/cgroup{part}", "memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            home, old = "/sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            found += [_left(place, *old, "total_inactive_file") for place in (home, f"{home}{path}")]
    return [left for left in found if left is not None]


def _left(place: str, limit: str, used: str, cached: str) -> int | None:
    """Of one group; pages of files that nobody uses are given back when memory is short."""
    folder = Path(place)
    try:
        most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    try:
        entries = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken -= int(entries.get(cached, "0"))
    except (OSError, ValueError):
        pass
    return max(most - taken, 0)


def _left_of_addresses() -> list[int]:
    """What `ulimit -v` leaves this process."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return []
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError, IndexError):
        return []
    return [max(limit - pages * os.sysconf("SC_PAGE_SIZE"), 0)]


def kept_by(forward: Callable[[], object], common: Iterable["torch.Tensor"]) -> int:
    """Bytes that a forward pass keeps for its backward pass, without these tensors."""
    import torch

    seen: dict[int, int] = {}
    others = {tensor.data_ptr() for tensor in common} - {0}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in others:
            seen[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(seen.values())


def chunk_size(saved_bytes: int, vector_bytes: int, device: "torch.device") -> int:
    """Vectors per pass: a power of two between 1 and `LARGEST_CHUNK`, of a GPU `LARGEST_CHUNK_OF_GPU`.

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
    largest = LARGEST_CHUNK if device.type == "cpu" else LARGEST_CHUNK_OF_GPU
    return 1 << (max(1, min(largest, fitting)).bit_length() - 1)
