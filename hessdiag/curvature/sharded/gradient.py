"""The gradient of a sharded problem's objective: its numbers, and the graph that differentiates it again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from hessdiag.curvature.differences import loss_and_gradient
from hessdiag.curvature.pullback import batched_grad
from hessdiag.errors import ComputeError, first_line
from hessdiag.machine import cost
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem

NO_GRADIENT = ("the loss does not depend on any trainable parameter.", "an objective that uses the model it is given")


def gradient(problem: ShardedProblem, batch: Any, dtype: torch.dtype) -> Tensor:
    """This process's pieces (own,) of one batch's gradient."""
    with problem.evaluation():
        value = problem.evaluate(batch)
        if not value.requires_grad:
            raise ComputeError(*NO_GRADIENT)
        parts = torch.autograd.grad(value, problem.pieces, materialize_grads=True)
    return torch.cat([part.to(dtype) for part in parts])


def gradient_here(problem: Problem) -> Tensor:
    """The gradient over all batches, in float64: whole, (N,), or of a sharded problem this process's pieces, (own,)."""
    if not isinstance(problem, ShardedProblem):
        return loss_and_gradient(problem)[1]
    total = torch.zeros(problem.layout.own, dtype=torch.float64, device=problem.device)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        total += weight * gradient(problem, batch, torch.float64)
    cost.enter_gradient()
    return total


class ShardedGradient:
    """The graph of one batch's gradient. Its numbers are let go: products are pulled back from where they were made.

    Raises:
        ComputeError: if the loss depends on no parameter, or cannot be differentiated twice.
    """

    def __init__(self, problem: ShardedProblem, batch: Any) -> None:
        self._problem = problem
        with problem.evaluation():
            self._value = problem.evaluate(batch)
            if not self._value.requires_grad:
                raise ComputeError(*NO_GRADIENT)
            with _exact_alone():
                parts = torch.autograd.grad(self._value, problem.pieces, create_graph=True, allow_unused=True)
        reached = [index for index, part in enumerate(parts) if part is not None and part.requires_grad]
        self._edges = [(index, parts[index].dtype, get_gradient_edge(parts[index])) for index in reached]

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Rows of local `vectors` (k, own) times the Hessian: for each piece (k, share), or `None` for zeros."""
        inputs = self._problem.pieces_of(layer)
        if not self._edges:
            return [None] * len(inputs)
        parts = self._problem.layout.pieces(vectors)
        cotangents = [parts[index].to(dtype) for index, dtype, _ in self._edges]
        edges: Any = [edge for _, _, edge in self._edges]
        if len(vectors) > 1:  # where operations have no rule for several, the caller takes one by one
            return batched_grad(edges, inputs, cotangents)
        with _exact_alone():
            return batched_grad(edges, inputs, cotangents)


@contextmanager
def _exact_alone() -> Iterator[None]:
    """Say that what cannot be differentiated twice has no other products here: differences would need a copy."""
    try:
        yield
    except RuntimeError as error:
        if ran_out(error):
            raise
        raise ComputeError(
            f"a sharded model must be differentiable twice, and here autograd says: {first_line(error)}",
            "without --shard products are differences where double backward is missing",
        ) from error
