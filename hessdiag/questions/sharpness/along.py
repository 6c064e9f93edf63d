"""The loss along a step, by forward passes: of a copy of the model, or of a sharded one where its pieces lie."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hessdiag.curvature.differences import copied
from hessdiag.curvature.local import flat
from hessdiag.curvature.sharded.moved import moving
from hessdiag.curvature.sharded.vectors import spread_over
from hessdiag.errors import NotFiniteError
from hessdiag.linalg.tridiagonal import inner
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem


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

    def bare(step: float) -> float:
        moved.to(direction, -step)
        return _value(moved.problem)

    return _decayed(problem, bare, direction, decay)


@contextmanager
def trying(problem: Problem, direction: Tensor, decay: Tensor | float = 0.0) -> Iterator[Callable[[float], float]]:
    """The same of any problem, for a while: a sharded one has no copy, and stands where it stood again afterwards.

    Args:
        problem: At theta.
        direction: d, (N,), or of a sharded problem this process's pieces of it, (own,).
        decay: Of all weights, or of each.

    Raises:
        CannotCopyError: if the model is whole, and cannot be copied.
    """
    if not isinstance(problem, ShardedProblem):
        yield loss_along(problem, direction, decay)
        return
    with moving(problem) as moved:

        def bare(step: float) -> float:
            moved.to(direction, -step)
            try:
                return moved.loss()
            except NotFiniteError:
                return math.inf

        yield _decayed(problem, bare, direction, decay)


def _decayed(
    problem: Problem, loss: Callable[[float], float], direction: Tensor, decay: Tensor | float
) -> Callable[[float], float]:
    """A loss along a direction, with the weight decay's half of squares."""
    start = slope = bend = 0.0
    if isinstance(decay, Tensor) or decay:
        theta, spread = weights(problem), spread_over(problem)
        pairs = ((theta, theta), (theta, direction), (direction, direction))
        start, slope, bend = (inner(decay * a, b, spread) for a, b in pairs)
    return lambda step: loss(step) + (start - 2 * step * slope + step**2 * bend) / 2


def weights(problem: Problem) -> Tensor:
    """The parameters as one vector, (N,), or of a sharded problem this process's pieces of it, (own,)."""
    tensors = problem.pieces if isinstance(problem, ShardedProblem) else problem.parameters
    return flat([tensor.detach() for tensor in tensors], problem.dtype)


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
