"""Several processes, as `torchrun` starts them: who computes what, and how it comes together.

Rows, blocks and seeds split with no communication until the end. Without `torchrun` there is one process, and
everything here does nothing.
"""

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hessdiag.errors import ComputeError, first_line
from hessdiag.machine.ranks import local_size
from hessdiag.machine.ranks import ranks as ranks

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # a slow rank is waited for; a lost one closes its connection and is noticed at once
TOGETHER = timedelta(minutes=1)  # for a sum between GPUs, once all ranks have come to it


def together() -> bool:
    """Whether several processes measure together: then none may stop alone, and what one has is no answer.

    >>> together()
    False
    """
    return ranks()[1] > 1


def backend_for(device: torch.device) -> str:
    """Nccl where every process of this machine can have a GPU of its own, as it demands; else gloo, which is slower.

    >>> backend_for(torch.device("cpu"))
    'gloo'
    """
    processes = local_size()
    return "nccl" if device.type == "cuda" and torch.cuda.device_count() >= processes else "gloo"


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any and they were not met before."""
    if together() and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else each process would hold a context on the first GPU too
        with peers():
            dist.init_process_group("gloo", timeout=PATIENCE)
        atexit.register(_leave)


@cache
def between_gpus() -> Any:
    """A group that sums on GPUs, beside the one in which processes meet. To be called by all ranks."""
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # an error where it is waited for, instead of an abort
    return dist.new_group(backend="nccl", timeout=TOGETHER)


def _leave() -> None:
    """End the threads of the connection: at the exit of a process that leaves them running, one in twenty aborts."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place.

    Raises:
        ComputeError: if a process was lost.
    """
    if together():
        join(tensor.device)
        with peers():
            if backend_for(tensor.device) == "nccl":
                dist.barrier()  # of gloo, which sees who is lost; nccl would wait for it
                dist.all_reduce(tensor, group=between_gpus())
            else:
                dist.all_reduce(tensor)
    return tensor


def merged(own: dict[int, T], device: torch.device) -> list[T]:
    """Results by number from all processes, in order.

    Raises:
        ComputeError: if a process was lost.
    """
    _, size = ranks()
    everything: list[dict[int, T]] = [own] * size
    if size > 1:
        join(device)
        with peers():
            dist.all_gather_object(everything, own)
    found = {index: value for part in everything for index, value in part.items()}
    return [found[index] for index in sorted(found)]


def least(number: int, device: torch.device) -> int:
    """The smallest of all processes' numbers: what hangs on free memory has to be one and the same for all of them.

    Raises:
        ComputeError: if a process was lost.
    """
    return min(merged({ranks()[0]: number}, device))


def is_own(index: int) -> bool:
    """Whether the task of this number is this process's to do."""
    rank, size = ranks()
    return index % size == rank


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """Turn the many errors of a lost connection into one sentence."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        rank, size = ranks()
        raise ComputeError(
            f"rank {rank} of {size} lost another rank: {first_line(error)}",
            "look at the first error above; if memory ran out, fewer ranks per machine",
        ) from error
