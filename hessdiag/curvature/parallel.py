"""Several processes, as `torchrun` starts them: who computes what, and how it comes together.

Products split samples and need one all-reduce each. Rows, blocks and seeds split with no communication until the end.
Without `torchrun` there is one process, and everything here does nothing.
"""

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import cache, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.errors import ComputeError, HessdiagError
from hessdiag.machine.ranks import local_size
from hessdiag.machine.ranks import ranks as ranks
from hessdiag.problem.batches import batch as batches

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # a slow rank is waited for; a lost one closes its connection and is noticed at once
TOGETHER = timedelta(minutes=1)  # for a sum between GPUs, once all ranks have come to it
SPLIT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


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
        with _peers():
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
        with _peers():
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
        with _peers():
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
def _peers() -> Iterator[None]:
    """Turn the many errors of a lost connection into one sentence."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        rank, size = ranks()
        line = str(error).strip().splitlines()[0]
        raise ComputeError(
            f"rank {rank} of {size} lost another rank: {line}",
            "look at the first error above; if memory ran out, fewer ranks per machine",
        ) from error


class SharedOperator:
    """A matrix of second derivatives whose products split the samples over all processes.

    The same vectors must be given on all of them; all get the same products.

    Args:
        part: The matrix of this process's samples.
        share: What its average over them counts for in the average over all.
    """

    def __init__(self, part: CurvatureOperator[Any], share: float) -> None:
        self._part, self._share = part, share
        self.shape, self.dtype, self.device = part.shape, part.dtype, part.device

    @property
    def engine(self) -> str:
        """How products are computed, for the report."""
        return f"{self._part.engine}; samples split over {ranks()[1]} processes"

    @property
    def precision(self) -> float:
        """Relative error of products."""
        return self._part.precision

    def own(self, vectors: Tensor) -> Tensor:
        """What this process adds to a product."""
        return self._share * (self._part @ vectors)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The whole matrix times v of shape (N,), or V of shape (N, k)."""
        return total(self.own(vectors))


def shared(operator: CurvatureOperator[Any]) -> CurvatureOperator[Any] | SharedOperator:
    """The same matrix, shared by all processes, where samples can be split, and as it is otherwise.

    Samples can be split where the products of the parts add up to those of the whole: not with batch statistics or
    graphs, and not with an objective that is no mean over samples. One product with a random vector tells.
    """
    if not together():
        return operator
    join(operator.device)
    v = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = v.to(operator.device, operator.dtype)
    split = None
    own = torch.full_like(v, torch.nan)
    with contextlib.suppress(HessdiagError, RuntimeError, ValueError, TypeError, LookupError):  # no batch, perhaps
        split = SharedOperator(*_own_part(operator))
        own = split.own(v)
    whole, parts = operator @ v, total(own)
    distance = float((whole - parts).norm() / whole.norm().clamp_min(torch.finfo(whole.dtype).tiny))
    allowed = max(SPLIT_TOLERANCE.get(operator.problem.dtype, 1e-2), 10 * operator.precision)
    apart = not distance <= allowed
    refused = float(total(torch.tensor([float(apart)], device=operator.device)))
    return operator if refused or split is None else split


def _own_part(operator: CurvatureOperator[Any]) -> tuple[CurvatureOperator[Any], float]:
    """The matrix of this process's samples of every batch, and their share of the whole."""
    rank, size = ranks()
    problem = operator.problem
    parts, own = [], 0.0
    for batch in problem.data:
        n = batches.samples(batch)
        part = batches.map_tensors(partial(_rows, slice(rank * n // size, (rank + 1) * n // size), n), batch)
        weight = problem.terms(part).count if (rank + 1) * n // size > rank * n // size else 0.0
        if weight:  # a mean over ignored targets alone is no number
            parts.append(part)
            own += weight
    if not parts:
        return operator, 0.0
    share = 1.0 if problem.loss_reduction == "sum" else own / problem.averaged.count
    return operator.on(problem.like(data=parts)), share


def _rows(own: slice, samples: int, tensor: Tensor) -> Tensor:
    """Some samples of a tensor of a batch; tensors that do not run over samples stay whole."""
    return tensor[own] if tensor.ndim and len(tensor) == samples else tensor
