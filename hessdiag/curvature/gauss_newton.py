"""The Gauss-Newton matrix of a problem as a linear operator: curvature of the loss seen through the output."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from hessdiag.curvature.differences import NoDoubleBackwardError, reason, refuse_cut
from hessdiag.curvature.operator import CurvatureOperator, batched_grad, out_of_memory
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.problem import batch as batches
from hessdiag.problem import loss as losses
from hessdiag.problem.problem import Layer, Problem

Function = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Sandwich:
    """One batch's J' M J.

    Attributes:
        problem: Whose parameters are differentiated.
        output: z, with the graph that leads to the parameters; J is its Jacobian.
        middle: M times each row of a tensor (k, *z.shape).
        differences: J v of each row, where z cannot be differentiated twice.
    """

    problem: Problem
    output: Tensor
    middle: Callable[[Tensor], Tensor]
    differences: Callable[[Tensor], Tensor] | None = None

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Rows of `vectors` (k, N) times J' M J."""
        slopes = self._jacobian(vectors) if self.differences is None else self.differences(vectors)
        cotangents = self.middle(slopes)
        return batched_grad([self.output], self.problem.parameters_of(layer), [cotangents])

    def _jacobian(self, vectors: Tensor) -> Tensor:
        """J v of each row, (k, *output.shape).

        It is the derivative, in u, of u'J: reverse over reverse. Forward mode would be one pass fewer, but in torch
        2.13 it is wrong through LayerNorm's weights and BatchNorm in training mode.
        """
        try:
            return self._twice_backwards(vectors)
        except RuntimeError as error:
            if len(vectors) > 1 or out_of_memory(error):  # of several vectors, batching may be what fails
                raise
            raise NoDoubleBackwardError(reason(error)) from error

    def _twice_backwards(self, vectors: Tensor) -> Tensor:
        u = torch.zeros_like(self.output, requires_grad=True)
        slopes = torch.autograd.grad(self.output, self.problem.parameters, u, create_graph=True, allow_unused=True)
        pairs = [
            (slope, vectors[:, place].view(-1, *slope.shape).to(slope.dtype))
            for slope, place in zip(slopes, self.problem.places(), strict=True)
            if slope is not None and slope.requires_grad
        ]
        if not pairs:
            return u.new_zeros(len(vectors), *u.shape)
        outputs, cotangents = zip(*pairs, strict=True)
        product = batched_grad(outputs, [u], cotangents)[0]
        return u.new_zeros(len(vectors), *u.shape) if product is None else product


class OutputSpaceOperator(CurvatureOperator[Sandwich]):
    """J' M J summed over batches: symmetric of shape (N, N), known through its products.

    Args:
        problem: What is differentiated; it needs a loss of the output.
        sandwich: From the problem and a batch to its part.

    Raises:
        SpecError: if the problem has an objective, or a loss that the model itself computes.
    """

    method = "reverse over reverse"
    differences = "central differences of outputs"

    def __init__(self, problem: Problem, sandwich: Callable[[Problem, Any], Sandwich]) -> None:
        if problem._loss is None:
            raise SpecError(
                "Gauss-Newton and Fisher matrices need a loss of the model's output; an objective has no such split.",
                "--operator hessian, or --loss ce|mse|bce|nll|FILE.py:f",
            )
        super().__init__(problem)
        self._sandwich = sandwich

    def _forward(self, batch: Any) -> Any:
        return output_of(self.problem, batch)

    def _graph(self, batch: Any) -> Sandwich:
        sandwich, moved = self._sandwich(self.problem, batch), self._moved
        if moved is not None:
            there = moved.batch(batch)

            def differences(vectors: Tensor) -> Tensor:
                zero = [torch.zeros_like(sandwich.output)]
                return moved.products(vectors, lambda: [self._sandwich(moved.problem, there).output], zero)[0]

            return replace(sandwich, differences=differences)
        if not self._examined:
            refuse_cut([sandwich.output])
            self._examined = True
        return sandwich


class GaussNewtonOperator(OutputSpaceOperator):
    """The generalized Gauss-Newton matrix G = J' B J of a problem, (N, N), positive semidefinite for convex losses.

    J is the Jacobian of the model's output z in the parameters and B the Hessian of the loss in z (Schraudolph 2002):
    the Hessian without the curvature of the model itself. For cross-entropy, z are the logits. The loss named `nll` is
    linear in the log-probabilities that it takes; they are taken for logits, which they are, so that nll and ce agree.
    torch's `NLLLoss` and `nll_loss` are taken as they are: linear in the output, so that G is zero.

    Args:
        problem: What is differentiated; it needs a loss of the output.

    Raises:
        SpecError: if the problem has an objective, or a loss that the model itself computes.

    Example: a linear model has no curvature of its own, so G is the Hessian.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> GaussNewtonOperator(Problem(model, data=data, loss="mse")) @ torch.eye(2).double()
    tensor([[2., 4.],
            [4., 8.]], dtype=torch.float64)
    """

    matrix = "the Gauss-Newton matrix"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, gauss_newton)


def output_loss(loss: losses.Loss) -> Function:
    """The function of (what is received, target) whose curvature G sees: the loss, but cross-entropy for our `nll`.

    That loss is linear in the log-probabilities that it takes. They are taken for logits, which they are.
    """
    return losses.NAMED["ce"].function if loss.kind == "nll" and loss.of_tensor else loss.function


def natural_loss(loss: losses.Loss) -> Function:
    """The same likelihood as a function of natural parameters, whose curvature is the Fisher matrix."""
    if loss.kind != "nll":
        return loss.function
    return output_loss(loss) if loss.of_tensor else partial(F.cross_entropy, **loss.options)


def gauss_newton(problem: Problem, batch: Any, function: Callable[[losses.Loss], Function] = output_loss) -> Sandwich:
    """One batch's part of the Gauss-Newton matrix.

    Args:
        problem: What is differentiated.
        batch: Of its data.
        function: From the loss to what is differentiated twice in the output.
    """
    output, target = output_of(problem, batch)
    assert problem._loss is not None
    curved = function(problem._loss)
    leaf = output.detach().requires_grad_()
    value = curved(leaf, target)
    try:
        refuse_cut([value])
    except NoDoubleBackwardError as error:
        raise ComputeError(f"the loss has no second derivative: {error}.", "--operator hessian") from error
    slope = torch.autograd.grad(value, leaf, create_graph=True)[0] if value.requires_grad else torch.zeros_like(leaf)

    def middle(vectors: Tensor) -> Tensor:
        product = batched_grad([slope], [leaf], [vectors])[0] if slope.requires_grad else None
        return torch.zeros_like(vectors) if product is None else product  # a loss that is linear in the output

    return Sandwich(problem, output, middle)


def output_of(problem: Problem, batch: Any) -> tuple[Tensor, Any]:
    """The model's output with its graph, and the target.

    Raises:
        ComputeError: if model and batch do not fit.
        LoadError: if the batch has no target, or the output is no tensor.
    """
    inputs, target = batches.split(batch)
    if target is None:
        raise LoadError("the batch has no target: Gauss-Newton and Fisher matrices need one.", "--operator hessian")
    try:
        with problem.evaluation():
            output = batches.output_tensor(batches.forward(problem.model, inputs))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ComputeError(f"model and batch do not fit: {(str(error).splitlines() or [''])[0]}") from error
    if not output.requires_grad:
        raise ComputeError("the output does not depend on any trainable parameter.")
    return output, target
