"""One batch's J' M J of a sharded problem: each process has the outputs of its own samples, and a piece of the product.

J' u is a sum over processes, of which each keeps its piece; J v takes everyone's pieces of v. Both run through the
units, which gather what they need and compute anew.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.curvature.received import NoGaussNewtonError
from hessdiag.errors import HessdiagError
from hessdiag.machine.collectives import summed
from hessdiag.problem.layers import Layer
from hessdiag.shards.problem import ShardedProblem

T = TypeVar("T")

Middle = Callable[[list[Tensor]], list[Tensor]]


class ShardedSandwich:
    """One batch's part of J' M J.

    The graph of J' u as a function of u is made once: J v is its derivative, whatever u.

    Args:
        problem: Whose pieces are differentiated.
        outputs: z of this process's samples, with the graph that leads to the pieces.
        middle: M times each row of tensors (k, *z.shape), one for each output.
        weight: What the samples weigh in the batch.
    """

    def __init__(self, problem: ShardedProblem, outputs: tuple[Tensor, ...], middle: Middle, weight: float) -> None:
        self._problem, self._middle, self._weight = problem, middle, weight
        self.outputs = outputs
        self._duals = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        slopes = pullback(outputs, problem.pieces, self._duals, create_graph=True)
        self._slopes = [
            (index, slope) for index, slope in enumerate(slopes) if slope is not None and slope.requires_grad
        ]
        for _, slope in self._slopes:
            slope.untyped_storage().resize_(0)  # zeros, of which only the graph is needed

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Rows of local `vectors` (k, own) times J' M J: for each piece (k, share), or `None` for zeros."""
        pieces = self._problem.pieces_of(layer)
        if not self._slopes:
            return [None] * len(pieces)
        parts = self._problem.layout.pieces(vectors)
        cotangents = [parts[index].to(slope.dtype) for index, slope in self._slopes]
        found = batched_grad([slope for _, slope in self._slopes], self._duals, cotangents)
        moves = [
            dual.new_zeros(len(vectors), *dual.shape) if part is None else part
            for part, dual in zip(found, self._duals, strict=True)
        ]
        bent = _everywhere(lambda: self._middle(moves))
        return batched_grad(self.outputs, pieces, [part * self._weight for part in bent])


def _everywhere(compute: Callable[[], T]) -> T:
    """What a computation without exchanges gives; where it fails in one process, it fails in all.

    Raises:
        HessdiagError: the process's own, or that another had one.
    """
    error: HessdiagError | None = None
    try:
        found = compute()
    except HessdiagError as failed:
        error = failed
    others = float(summed(torch.tensor(float(error is not None))))
    if error is not None:
        raise error
    if others:
        raise NoGaussNewtonError(
            "on another rank the loss has no second derivative in the output: its message says why."
        )
    return found
