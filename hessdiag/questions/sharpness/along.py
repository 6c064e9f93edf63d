"""The loss along a step, by forward passes of a copy of the model."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hessdiag.curvature.differences import copied
from hessdiag.curvature.local import flat
from hessdiag.linalg.tridiagonal import inner
from hessdiag.problem.problem import Problem


def loss_along(problem: Problem, direction: Tensor, decay: Tensor | float = 0.0) -> Callable[[float], float]:
    """What the loss is at theta - s d, with weight decay where that is part of the gradient.

    Each call is one forward pass over all batches, without a graph where the model can do without. NaN and infinity are
    what they are.

    Args:
        problem: At theta.
        direction: d, (N,).
        decay: Of all weights, or of each, (N,).

    Raises:
        CannotCopyError: if the model cannot be copied.

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.constant_(model.weight, 3.0)
    >>> square = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    >>> loss_along(square, torch.ones(1).double(), decay=3.0)(1.0)  # at 2: 4, and 3 / 2 of that for the decay
    10.0
    """
    moved = copied(problem, None)
    start = slope = bend = 0.0
    if isinstance(decay, Tensor) or decay:
        theta = weights(problem)
        start, slope, bend = (inner(decay * a, b) for a, b in ((theta, theta), (theta, direction), (direction,) * 2))

    def loss(step: float) -> float:
        moved.to(direction, -step)
        return _value(moved.problem) + (start - 2 * step * slope + step**2 * bend) / 2

    return loss


def weights(problem: Problem) -> Tensor:
    """The parameters as one vector, (N,)."""
    return flat([parameter.detach() for parameter in problem.parameters], problem.dtype)


def _value(problem: Problem) -> float:
    """The loss of all batches: infinite where a model or loss refuses numbers that are too large."""
    try:
        with torch.no_grad():
            return _sum(problem)
    except RuntimeError:  # of a model that differentiates in its forward pass
        return _sum(problem)


def _sum(problem: Problem) -> float:
    total = 0.0
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        with problem.evaluation():
            total += weight * float(problem.objective_function(problem.model, batch).detach())
    return total if total == total else math.inf
