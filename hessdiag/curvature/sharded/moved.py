"""A sharded problem's pieces moved along a direction, where they lie: each process moves its own, and puts it back."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import STEP, Holding
from hessdiag.curvature.pullback import pullback
from hessdiag.curvature.sharded import local
from hessdiag.curvature.sharded.local import inner, norm
from hessdiag.machine import cost
from hessdiag.shards.problem import ShardedProblem

# What is done around a batch's value (`True`), and then around its gradient: units compute twice.
Around = Callable[[Any, bool], AbstractContextManager[None]]


class MovedPieces:
    """A sharded problem whose pieces stand wherever they were moved last; see `moving`.

    Graphs that were made before stay valid, for they find the same numbers afterwards.

    Attributes:
        problem: Itself: there is no copy.
        holding: What is done around each evaluation of outputs.
    """

    def __init__(self, problem: ShardedProblem) -> None:
        self.problem: ShardedProblem = problem
        self.holding: Holding | None = None
        self._at: tuple[Tensor, float] | None = None  # where the pieces stand, beside theta
        self._theta = [piece.detach().clone() for piece in problem.pieces]
        self._size = math.sqrt(sum(inner(*((value, value) for value in self._theta)))) or 1.0

    def step(self, v: Tensor, relative: float | None = None) -> float:
        """The multiple of v to go: `relative`, or `STEP` cube roots of rounding, times |theta| / |v|."""
        if relative is None:
            relative = STEP * torch.finfo(self.problem.dtype).eps ** (1 / 3)
        return relative * self._size / norm(v)

    def to(self, v: Tensor, h: float) -> None:
        """Move to theta + h v, with v a local vector (own,)."""
        for piece, value, part in zip(self.problem.pieces, self._theta, self.problem.layout.pieces(v), strict=True):
            # By way of `data`, which graphs that saved the piece do not watch.
            torch.add(value, part.to(value), alpha=h, out=piece.data)
        self._at = v, h

    def origin(self) -> None:
        """Move back to theta, bit for bit."""
        self._at = None
        for piece, value in zip(self.problem.pieces, self._theta, strict=True):
            piece.data.copy_(value)

    @contextmanager
    def at_origin(self) -> Iterator[None]:
        """At theta, and back again."""
        back = self._at
        self.origin()
        yield
        if back is not None:
            self.to(*back)

    def difference(self, v: Tensor, h: float, function: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Central difference of a function of the parameters along v, in float64."""
        ends = []
        for side in (1, -1):
            self.to(v, side * h)
            ends.append([tensor.detach().to(dtype=torch.float64, copy=True) for tensor in function()])
        return [(ahead - behind) / (2 * h) for ahead, behind in zip(*ends, strict=True)]

    def weighed(self) -> Iterator[tuple[float, Any]]:
        """This process's samples of every batch, with what they weigh in the whole."""
        for weight, batch in zip(self.problem.batch_weights, self.problem.data, strict=True):
            own, share = self.problem.own_share(batch)
            yield weight * share, own

    def whole(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        return local.summed_numbers(numbers)

    def gradient(self, batch: Any, around: Around | None = None) -> list[Tensor]:
        """This process's parts of the gradient of one batch's objective where the pieces stand, without a graph.

        Args:
            batch: Of the problem's data.
            around: What is done around it.
        """
        problem = self.problem
        with problem.evaluation():
            with nullcontext() if around is None else around(batch, True):
                value = problem.evaluate(batch)
            with nullcontext() if around is None else around(batch, False):
                # Not by torch.autograd.grad, inside of which nobody is told of functions that are called.
                parts = pullback([value], problem.pieces, [torch.ones_like(value)])
        return [
            torch.zeros_like(piece) if part is None else part for piece, part in zip(problem.pieces, parts, strict=True)
        ]

    def add_gradient(self, total: Tensor, factor: float, around: Around | None = None) -> float:
        """Add the gradient where the pieces stand to a local vector (own,), `factor` times.

        Each part of it is let go once it is added.

        Args:
            total: What it is added to.
            factor: How many times.
            around: What is done around each batch's.

        Returns:
            What its norm is at most.
        """
        problem, size = self.problem, 0.0
        for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
            parts = self.gradient(batch, around)
            size += weight * math.sqrt(sum(inner(*((part, part) for part in parts))))
            for place in reversed(problem.layout.places):
                total[place].add_(parts.pop().to(total), alpha=factor * weight)
        cost.enter_gradient()
        return size

    def loss(self) -> float:
        """Loss over all batches and processes where the pieces stand."""
        return self.problem.value()


@contextmanager
def moving(problem: ShardedProblem) -> Iterator[MovedPieces]:
    """A sharded problem that can be moved, and stands at its parameters again afterwards, whatever happens.

    It takes one local vector of memory.

    >>> from hessdiag.problem.problem import Problem
    >>> from hessdiag.shards.problem import sharded
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> problem = sharded(Problem(model, data=[(torch.ones(1, 2).double(), torch.zeros(1, 1).double())], loss="mse"))
    >>> before = problem.value()
    >>> with moving(problem) as moved:
    ...     moved.to(-problem.pieces[0].detach(), 1.0)
    ...     moved.loss()
    0.0
    >>> problem.value() == before
    True
    """
    moved = MovedPieces(problem)
    try:
        yield moved
    finally:
        moved.origin()
