"""The Hessian of a problem as a linear operator: products with vectors, rows by index, blocks by layer.

The gradient's graph is kept, so that each product pays for the second derivative only (Pearlmutter 1994), and many
vectors share one pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.chains.layer_chain import LayerChain, NotAChainError
from hessdiag.curvature.differences import GradientDifferences, NoDoubleBackwardError, reason, refuse_cut
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.pullback import batched_grad
from hessdiag.curvature.sharded.gradient import ShardedGradient, gradient
from hessdiag.curvature.sharded.vectors import unit_rows
from hessdiag.errors import ComputeError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.evaluation.convolutions import plain_convolutions
from hessdiag.problem.evaluation.rectifiers import plain_rectifiers
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem

PASSES = 8  # of rows for each graph, where it is built anew for them: it takes as long as about two


class HessianOperator(CurvatureOperator["LayerChain | _GradientGraph | GradientDifferences | ShardedGradient"]):
    """The Hessian H of a problem, symmetric of shape (N, N), known only through its products.

    Products are second derivatives by automatic differentiation, exact up to rounding. Where the model has none, they
    are central differences of gradients, and `engine` says so.

    Before the first product the point is looked at, once for a problem and its parameters: at a smooth point where
    autograd is wrong or NaN, differences take its place; of a kink a warning tells; and where there is no Hessian, or
    the gradient is not the loss's, products are refused.

    Of a sharded problem, products take and give what this process holds of a vector, (own,) or (own, k); `spread` says
    how much that is, and sums numbers over all processes.

    Args:
        problem: What is differentiated. Parameters that the loss does not reach have zero rows.
        check: Whether to look at the point; it costs about three gradients and a product.

    Raises:
        NoHessianError: (a `ComputeError`) from the first product, if it cannot be trusted.

    Example: for half of a squared distance to the origin, H is the identity.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> square = lambda model, batch: model.weight.square().sum() / 2
    >>> H = HessianOperator(Problem(model, data=[None], objective=square))
    >>> H @ torch.tensor([3.0, 4.0], dtype=torch.float64)
    tensor([3., 4.], dtype=torch.float64)
    """

    matrix = "the Hessian"
    method = "double backward"
    differences = "central differences of gradients"
    second = True
    _chained = True  # whether batches so far were those of a chain of linear layers

    def gradient(self) -> Tensor:
        """The gradient of the problem's function, shape (N,) or (own,); in a metric P^(-1/2) g."""
        return self._retried(self._gradient)

    def _gradient(self) -> Tensor:
        total = torch.zeros(self.spread.own, dtype=self.dtype, device=self.device)
        if isinstance(self.problem, ShardedProblem):
            for weight, batch in zip(self.problem.batch_weights, self.problem.data, strict=True):
                total += weight * gradient(self.problem, batch, self.dtype)
        else:
            for weight, graph in self._graphs():
                assert not isinstance(graph, ShardedGradient)
                total += weight * graph.flat_gradient()
        return total if self.scale is None else total.mul_(self.scale)

    def rows(self, indices: Tensor, layer: Layer | None = None) -> Tensor:
        """Rows of H by index, each exact: one product with a unit vector.

        Args:
            indices: Row numbers, shape (k,).
            layer: Only the columns of this layer; the others are not computed.

        Returns:
            Tensor of shape (k, N), or (k, layer.size).
        """
        if isinstance(self.problem, ShardedProblem):
            return self._products(unit_rows(self.problem, indices, self.dtype), layer)
        units = torch.zeros(len(indices), self.shape[0], dtype=self.dtype, device=self.device)
        units[torch.arange(len(indices), device=self.device), indices.to(self.device)] = 1.0
        return self._products(units, layer)

    @property
    def portion(self) -> int:
        """How many rows come of one call of `rows` in `blocks`: several passes, where each call rebuilds graphs."""
        return self.chunk * (1 if len(self.problem.data) == 1 else PASSES)

    def blocks(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows after others, with their numbers, so that a matrix that takes them is held once."""
        for some in torch.split(indices, self.portion):
            yield some, self.rows(some)

    def _forward(self, batch: Any) -> Tensor:
        return self.problem.evaluate(batch)

    def _graph(self, batch: Any) -> "LayerChain | _GradientGraph | GradientDifferences | ShardedGradient":
        if isinstance(self.problem, ShardedProblem):
            return ShardedGradient(self.problem, batch)
        if self._moved is not None:
            return GradientDifferences(self._moved, batch, self.dtype)
        graph = self._chain(batch) or _GradientGraph(self.problem, batch, self.dtype)
        if not self._examined:
            refuse_cut(graph.ends)
            self._examined = True
        return graph

    def _chain(self, batch: Any) -> LayerChain | None:
        """The same by hand, where the model is simple enough for it."""
        if not self._chained:
            return None
        try:
            found = LayerChain(self.problem, batch, self.dtype)
        except NotAChainError:
            self._chained, self.method, self.cpu_fewest = False, type(self).method, type(self).cpu_fewest
            return None
        self.method, self.cpu_fewest = "forward over reverse, layer by layer", 2
        return found


class _GradientGraph:
    """The gradient of one batch's objective, (N,), with the graph that differentiates it again."""

    def __init__(self, problem: Problem, batch: Any, dtype: torch.dtype) -> None:
        self.problem = problem
        try:
            with plain_rectifiers():
                parts = self._parts(batch)
        except NoDoubleBackwardError:  # or the model writes over the inputs of its ReLUs, which torch does not keep
            parts = self._parts(batch)
        # One tensor, for autograd looks at every cotangent of every product in Python.
        self.gradient = torch.cat([part.reshape(-1).to(dtype) for part in parts])

    def _parts(self, batch: Any) -> tuple[Tensor, ...]:
        """The gradient's parts, one for each parameter."""
        with plain_convolutions():
            self.value = self.problem.evaluate(batch)
        if not self.value.requires_grad:
            raise ComputeError(
                "the loss does not depend on any trainable parameter.",
                "check that the model is used in the objective, and not detached",
            )
        parameters = self.problem.parameters
        try:
            with self.problem.evaluation():  # checkpointed parts of the model run again here
                return torch.autograd.grad(self.value, parameters, create_graph=True, materialize_grads=True)
        except RuntimeError as error:
            if ran_out(error):
                raise
            raise NoDoubleBackwardError(reason(error)) from error

    @property
    def ends(self) -> list[Tensor]:
        """Tensors whose graphs are differentiated again."""
        return [self.value, self.gradient]

    def flat_gradient(self) -> Tensor:
        """The gradient without its graph; zero where the loss depends on nothing."""
        return self.gradient.detach()

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Hessian rows for each row of `vectors` (k, N): one pass for all."""
        inputs = self.problem.parameters_of(layer)
        if not self.gradient.requires_grad:
            return [None] * len(inputs)
        try:
            return batched_grad([self.gradient], inputs, [vectors])
        except RuntimeError as error:
            if len(vectors) > 1 or ran_out(error):  # of several vectors, batching may be what fails
                raise
            raise NoDoubleBackwardError(reason(error)) from error
