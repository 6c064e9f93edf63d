"""Several processes, as `torchrun` starts them: who computes what, and how it comes together.

Rows, blocks and seeds split with no communication until the end. Without `torchrun` there is one process, and
everything here does nothing.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hessdiag.errors import ExitCode, said
from hessdiag.machine import meeting
from hessdiag.machine.others import finish
from hessdiag.machine.ranks import local_size
from hessdiag.machine.ranks import ranks as ranks
from hessdiag.machine.shortage import ran_out

T = TypeVar("T")

TOGETHER = timedelta(minutes=1)  # for a sum between GPUs, once all ranks have come to it
SMALL = 2**20  # bytes in all processes: so few are sent to each at once; a ring takes twice as many steps as ranks


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


def meet() -> None:
    """Meet the other processes, if there are any and they were not met before."""
    if together() and not dist.is_initialized():
        meeting.meet()
        atexit.register(_leave)


def join(device: torch.device) -> None:
    """The same, before something is computed together on a device."""
    if together() and device.type == "cuda":
        torch.cuda.set_device(device)  # else each process would hold a context on the first GPU too
    meet()
    meeting.go_on()


@cache
def between_hosts() -> Any:
    """A group for what lies on the hosts: that in which processes met, or one beside a user's own that is for GPUs."""
    return None if "cpu:" in dist.get_backend_config() else dist.new_group(backend="gloo", timeout=meeting.PATIENCE)


@cache
def between_gpus() -> Any:
    """A group that sums on GPUs, beside the one in which processes meet. To be called by all ranks."""
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # an error where it is waited for, instead of an abort
    return dist.new_group(backend="nccl", timeout=TOGETHER)


def _leave() -> None:
    """Leave the others, and tell them why where that is an exception: a script's, which Python has shown already."""
    error = getattr(sys, "last_value", None)
    if error is not None:
        meeting.last_words(said(error), None, ExitCode.FAILED)
    meeting.leave()


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place.

    Raises:
        LostRankError: if a process was lost.
    """
    if together():
        join(tensor.device)
        with peers():
            if backend_for(tensor.device) == "nccl":
                finish(dist.barrier(between_hosts(), async_op=True))  # of gloo, which sees who is lost; nccl would wait
                # Nccl takes what lies in order, and products with several vectors are columns.
                dist.all_reduce(tensor if tensor.is_contiguous() else tensor.T, group=between_gpus())
            elif is_small(tensor):
                tensor.copy_(of_each(tensor.cpu()).sum(0))
            else:
                finish(dist.all_reduce(tensor, group=between_hosts(), async_op=True))
    return tensor


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor of each process is sent faster to every other one than around."""
    return tensor.nbytes * ranks()[1] <= SMALL


def of_each(own: Tensor) -> Tensor:
    """The tensors of all processes, by rank: (...) becomes (size, ...). For small ones on the CPU, within `peers`."""
    return parted(own.expand(ranks()[1], *own.shape))


def parted(own: Tensor) -> Tensor:
    """What each process has for this one, by rank, of tensors (size, ...) whose row r is for rank r; within `peers`."""
    found = torch.empty_like(own, memory_format=torch.contiguous_format)
    finish(dist.all_to_all_single(found, own.contiguous(), group=between_hosts(), async_op=True))
    return found


def merged(own: dict[int, T], device: torch.device) -> list[T]:
    """Results by number from all processes, in order.

    Raises:
        LostRankError: if a process was lost.
    """
    _, size = ranks()
    everything: list[dict[int, T]] = [own] * size
    if size > 1:
        join(device)
        with peers():
            finish(dist.barrier(between_hosts(), async_op=True))  # the slowest is waited for here
            dist.all_gather_object(everything, own, between_hosts())
    found = {index: value for part in everything for index, value in part.items()}
    return [found[index] for index in sorted(found)]


def least(number: int, device: torch.device) -> int:
    """The smallest of all processes' numbers: what hangs on free memory has to be one and the same for all of them.

    Raises:
        LostRankError: if a process was lost.
    """
    return min(merged({ranks()[0]: number}, device))


def is_own(index: int) -> bool:
    """Whether the task of this number is this process's to do."""
    rank, size = ranks()
    return index % size == rank


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """Turn the many errors of a lost connection into why it was lost.

    Raises:
        LostRankError: with the words of the process that ended first.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if ran_out(error):
            raise
        raise meeting.lost(error) from error
