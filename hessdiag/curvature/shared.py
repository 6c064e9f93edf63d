"""A matrix of second derivatives that several processes share: each has some of the samples.

A product needs one all-reduce.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.errors import HessdiagError
from hessdiag.machine import processes
from hessdiag.shards import samples
from hessdiag.shards.problem import ShardedProblem

SPLIT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


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
        return f"{self._part.engine}; samples split over {processes.ranks()[1]} processes"

    @property
    def precision(self) -> float:
        """Relative error of products."""
        return self._part.precision

    def own(self, vectors: Tensor) -> Tensor:
        """What this process adds to a product."""
        return self._share * (self._part @ vectors)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The whole matrix times v of shape (N,), or V of shape (N, k)."""
        return processes.total(self.own(vectors))


def share(operator: CurvatureOperator[Any]) -> CurvatureOperator[Any] | SharedOperator:
    """The same matrix, shared by all processes, where samples can be split, and as it is otherwise.

    Samples can be split where the products of the parts add up to those of the whole: not with batch statistics or
    graphs, and not with an objective that is no mean over samples. One product with a random vector tells.
    """
    if not processes.together() or isinstance(operator.problem, ShardedProblem):  # which splits them itself
        return operator
    processes.join(operator.device)
    v = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = v.to(operator.device, operator.dtype)
    split = None
    own = torch.full_like(v, torch.nan)
    with contextlib.suppress(HessdiagError, RuntimeError, ValueError, TypeError, LookupError):  # no batch, perhaps
        split = SharedOperator(*_own_part(operator))
        own = split.own(v)
    whole, parts = operator @ v, processes.total(own)
    distance = float((whole - parts).norm() / whole.norm().clamp_min(torch.finfo(whole.dtype).tiny))
    allowed = max(SPLIT_TOLERANCE.get(operator.problem.dtype, 1e-2), 10 * operator.precision)
    apart = not distance <= allowed
    refused = float(processes.total(torch.tensor([float(apart)], device=operator.device)))
    return operator if refused or split is None else split


def _own_part(operator: CurvatureOperator[Any]) -> tuple[CurvatureOperator[Any], float]:
    """The matrix of this process's samples of every batch, and their share of the whole."""
    rank, size = processes.ranks()
    problem = operator.problem
    sums = problem.loss_reduction == "sum"

    def count(part: Any) -> float:
        return problem.terms(part).count

    pairs = [
        (weight, samples.parts(batch, size, count, sums=sums)[rank])
        for weight, batch in zip(problem.batch_weights, problem.data, strict=True)
        if weight  # a mean over ignored targets alone is no number
    ]
    own = [part.batch for _, part in pairs if part.weight]
    if not own:
        return operator, 0.0
    return operator.on(problem.like(data=own)), 1.0 if sums else sum(weight * part.weight for weight, part in pairs)
