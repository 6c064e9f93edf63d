"""Several processes, as `torchrun` starts them: who computes what, and how it comes together.

Products split samples and need one all-reduce each. Rows, blocks and seeds split with no communication until the end.
Without `torchrun` there is one process, and everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import ComputeError
from hessdiag.problem import batch as batches
from hessdiag.problem import loss as losses
from hessdiag.problem.problem import Problem

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # a slow rank is waited for; a lost one closes its connection and is noticed at once
SPLIT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def ranks() -> tuple[int, int]:
    """This process's rank and how many there are.

    >>> ranks()
    (0, 1)
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any and they were not met before."""
    if ranks()[1] > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _peers():
            dist.init_process_group(backend, timeout=PATIENCE)


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place.

    Raises:
        ComputeError: if a process was lost.
    """
    if ranks()[1] > 1:
        join(tensor.device)
        with _peers():
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


def is_own(index: int) -> bool:
    """Whether the task of this number is this process's to do."""
    rank, size = ranks()
    return index % size == rank


@contextmanager
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


class SharedHessian(HessianOperator):
    """The Hessian whose products split the samples over all processes.

    The same vectors must be given on all of them; all get the same products.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(_own_part(problem))
        self._notes = [f"samples split over {ranks()[1]} processes"]

    def _products(self, vectors: Tensor, layer: Any = None) -> Tensor:
        return total(super()._products(vectors, layer))

    def gradient(self) -> Tensor:
        """The gradient of the problem's function, shape (N,)."""
        return total(super().gradient())


def hessian_operator(problem: Problem) -> HessianOperator:
    """The Hessian as an operator: shared by all processes, where samples can be split, and local otherwise.

    Samples can be split where the gradients of the parts add up to that of the whole: not with batch statistics, and
    not with an objective that is no mean over samples.
    """
    local = HessianOperator(problem)
    if ranks()[1] == 1:
        return local
    join(problem.device)
    whole, parts = local.gradient(), SharedHessian(problem).gradient()
    distance = float((whole - parts).norm() / whole.norm().clamp_min(torch.finfo(whole.dtype).tiny))
    worst = total(torch.tensor([float(distance > SPLIT_TOLERANCE.get(problem.dtype, 1e-2))], device=problem.device))
    return local if float(worst) else SharedHessian(problem)


def _rows(own: slice, samples: int, tensor: Tensor) -> Tensor:
    """Some samples of a tensor of a batch; tensors that do not run over samples stay whole."""
    return tensor[own] if tensor.ndim and len(tensor) == samples else tensor


def _own_part(problem: Problem) -> Problem:
    """This process's samples of every batch, each weighted by its share of the whole."""
    rank, size = ranks()
    parts = []
    for batch, weight in zip(problem.data, problem.batch_weights, strict=True):
        n = batches.samples(batch)
        own = slice(rank * n // size, (rank + 1) * n // size)
        if own.start == own.stop:
            continue
        part = batches.map_tensors(partial(_rows, own, n), batch)
        if problem.loss_reduction != "sum":
            share = losses.batch_weight(problem._loss, part) / losses.batch_weight(problem._loss, batch)
            weight = weight * share
        parts.append((weight, part))
    if not parts:
        parts = [(0.0, problem.data[0])]
    return Problem(
        problem.model,
        data=parts,
        objective=lambda model, pair: pair[0] * problem._objective(model, pair[1]),
        reduction="sum",
        layers=problem.layers,
        train_mode=problem.train_mode,
        seed=problem.seed,
    )
