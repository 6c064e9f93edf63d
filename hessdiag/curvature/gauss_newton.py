"""The Gauss-Newton matrix of a problem as a linear operator: curvature of the loss seen through the output."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from hessdiag.curvature import output_slopes
from hessdiag.curvature.differences import NoDoubleBackwardError, reason, refuse_cut
from hessdiag.curvature.linearization import Linearization, linearization
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.point.examine import NoHessianError, PointWarning, known
from hessdiag.curvature.point.words import AT_KINK
from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.curvature.received import Function, NoGaussNewtonError, evaluated, output_of, scalar
from hessdiag.curvature.sharded.linearized import linearized
from hessdiag.curvature.sharded.outputs import ShardedSandwich
from hessdiag.errors import SpecError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.layers import Layer
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.losses.recognised import OwnLoss
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem
from hessdiag.shards.recompute import for_outputs


def _finite(parts: Sequence[Tensor | None]) -> bool:
    """Whether all numbers are finite; a GPU is waited for once."""
    told = [part.isfinite().all() for part in parts if part is not None]
    return not told or bool(torch.stack(told).all())


def _no_second_derivative(name: str, why: str) -> NoGaussNewtonError:
    return NoGaussNewtonError(
        f"the loss {name} has no second derivative in the output, so that there is no Gauss-Newton matrix: "
        f"{why.rstrip('.')}.",
        "--operator hessian, whose products are differences then",
    )


@dataclass(frozen=True)
class Sandwich:
    """One batch's J' M J.

    Attributes:
        problem: Whose parameters are differentiated.
        outputs: z, with the graph that leads to the parameters; J is the Jacobian of them all.
        middle: M times each row of tensors (k, *z.shape), one for each output.
        differences: J v of each row, where z cannot be differentiated twice.
    """

    problem: Problem
    outputs: tuple[Tensor, ...]
    middle: Callable[[list[Tensor]], list[Tensor]]
    differences: Callable[[Tensor], list[Tensor]] | None = None

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Rows of `vectors` (k, N) times J' M J."""
        parameters = self.problem.parameters_of(layer)
        if not self.outputs:
            return [None] * len(parameters)
        slopes = self._jacobian(vectors) if self.differences is None else self.differences(vectors)
        return batched_grad(self.outputs, parameters, self.middle(slopes))

    def _jacobian(self, vectors: Tensor) -> list[Tensor]:
        """J v of each row, (k, *output.shape).

        It is the derivative, in u, of u'J: reverse over reverse. Forward mode would be one pass fewer, but in torch
        2.13 it is wrong through LayerNorm's weights and BatchNorm in training mode.
        """
        try:
            return self._twice_backwards(vectors)
        except RuntimeError as error:
            if len(vectors) > 1 or ran_out(error):  # of several vectors, batching may be what fails
                raise
            raise NoDoubleBackwardError(reason(error)) from error

    def _twice_backwards(self, vectors: Tensor) -> list[Tensor]:
        duals = [torch.zeros_like(output, requires_grad=True) for output in self.outputs]
        slopes = pullback(self.outputs, self.problem.parameters, duals, create_graph=True)
        pairs = [
            (slope, vectors[:, place].view(-1, *slope.shape).to(slope.dtype))
            for slope, place in zip(slopes, self.problem.places(), strict=True)
            if slope is not None and slope.requires_grad
        ]
        found: list[Tensor | None] = [None] * len(duals)
        if pairs:
            outputs, cotangents = zip(*pairs, strict=True)
            found = batched_grad(outputs, duals, cotangents)
        recorded = self.outputs[0].is_cuda and torch.cuda.is_current_stream_capturing()  # nothing may be asked for then
        if not recorded and not _finite(found):
            # Where autograd divides zero by zero and the output is smooth, its differences are finite.
            raise NoDoubleBackwardError("the output's derivative by autograd is NaN or infinite here")
        return [
            dual.new_zeros(len(vectors), *dual.shape) if part is None else part
            for part, dual in zip(found, duals, strict=True)
        ]


class OutputSpaceOperator(CurvatureOperator["Sandwich | ShardedSandwich"]):
    """J' M J summed over batches: symmetric of shape (N, N), known through its products.

    Args:
        problem: What is differentiated; it needs a loss of the output.
        sandwich: From the problem and a batch to its part.
        function: From the loss to the function whose Hessian M is; `None` if M is none.
        check: Whether to look for random numbers and rewritten parameters before the first product,
            and to compare one with the linearized model.

    Attributes:
        semidefinite: Whether it is known to have no negative eigenvalue, whatever the point.

    Raises:
        SpecError: if the problem has an objective, or computes a loss itself that is no known function of its logits.
    """

    method = "reverse over reverse"
    of_outputs = True
    differences = "central differences of outputs"

    def __init__(
        self,
        problem: Problem,
        sandwich: Callable[[Problem, Any], Sandwich],
        function: Callable[[losses.Loss], Function] | None,
        *,
        semidefinite: bool,
        check: bool = True,
    ) -> None:
        if problem.loss_of_output is None:
            raise SpecError(
                f"Gauss-Newton and Fisher matrices need a loss of the model's output: {problem.why_no_loss_of_output}.",
                "--operator hessian, or --loss ce|mse|bce|nll|FILE.py:f",
            )
        super().__init__(problem, check=check)
        self._sandwich, self.function, self.semidefinite = sandwich, function, semidefinite
        self._slopes_error: float | None = None  # of M, where it is differences of the loss's gradients

    @property
    def engine(self) -> str:
        """How products are computed, for the report."""
        by_slopes = "the loss by central differences of its gradients, for autograd's second derivative is wrong there"
        loss = self.problem.loss_of_output
        own = [loss.definition] if isinstance(loss, OwnLoss) else []
        return "; ".join([super().engine, *own, *([by_slopes] if self._slopes_error is not None else [])])

    @property
    def precision(self) -> float:
        """Relative error of products."""
        return max(super().precision, self._slopes_error or 0.0)

    def compared(self, seed: int = 0) -> Linearization | None:
        """Compare a product with the loss along the linearized model.

        Where autograd is wrong in the loss though the loss is smooth, its differences take over from there.

        Returns:
            The comparison; `None` where no copy of the model can be made and moved.

        Raises:
            ComputeError: if products cannot be computed.
        """
        if self.scale is not None:  # slopes of the model are taken in its own parameters
            plain = self.scaled(None)
            found = plain.compared(seed)
            if plain._slopes_error is not None:
                self._slopes_error = plain._slopes_error
                self.forget()
            return found
        found = self._linearized(seed)
        if found is None or found.held or found.error <= found.allowed:
            return found
        assert self.function is not None
        assert self.problem.loss_of_output is not None
        self._slopes_error = output_slopes.error_if_smooth(
            self.problem, self.function(self.problem.loss_of_output), seed
        )
        if self._slopes_error is not None:
            self.forget()
            again = self._linearized(seed)
            if again is not None and again.error <= again.allowed:
                return again
            self._slopes_error = None
            self.forget()
        return found

    def _linearized(self, seed: int) -> Linearization | None:
        if isinstance(self.problem, ShardedProblem):
            return linearized(self, self.problem, seed)
        return linearization(self, seed)

    def settle(self) -> None:
        """Look at the point, and compare one product with the linearized model; once.

        Raises:
            NoHessianError: if products cannot be trusted, and `check` was not switched off.
        """
        new = not self._settled
        super().settle()
        found = self.compared() if new and self._check and self.function is not None else None
        if found is None:
            return
        examined = known(self.problem, self.matrix)
        allowed = found.allowed if examined is None else max(found.allowed, examined.tolerance)
        if not found.error <= allowed:
            raise NoHessianError(
                f"products with {self.matrix} are not the loss's curvature along the linearized model: relative error "
                f"{found.error:.1e}, allowed {allowed:.0e}.",
                "a loss and a model that detach nothing and have no kink here; check=False, to have the products "
                "nevertheless",
            )
        if found.held:
            warnings.warn(f"{AT_KINK} ({self.matrix})", PointWarning, stacklevel=4)

    def _forward(self, batch: Any) -> Any:
        if isinstance(self.problem, ShardedProblem):
            batch, _ = self.problem.own_share(batch)
        with evaluated(self.problem):
            return output_of(self.problem, batch)

    def _part(self, problem: Problem, batch: Any) -> Sandwich:
        if self._slopes_error is None:
            return self._sandwich(problem, batch)
        assert self.function is not None
        assert problem.loss_of_output is not None
        with evaluated(problem):
            z = output_of(problem, batch)
        return Sandwich(problem, z.tensors, output_slopes.middle(problem, z, self.function(problem.loss_of_output)))

    def _graph(self, batch: Any) -> Sandwich | ShardedSandwich:
        if isinstance(self.problem, ShardedProblem):
            problem, (own, weight) = self.problem, self.problem.own_share(batch)
            with for_outputs():
                part = problem.enlarging(lambda: self._part(problem, own))
            return ShardedSandwich(self.problem, part.outputs, part.middle, weight)
        sandwich, moved = self._part(self.problem, batch), self._moved
        if moved is not None:
            there = moved.batch(batch)

            def differences(vectors: Tensor) -> list[Tensor]:
                zero = [torch.zeros_like(output) for output in sandwich.outputs]
                return moved.products(vectors, lambda: self._part(moved.problem, there).outputs, zero)

            return replace(sandwich, differences=differences)
        if not self._examined:
            refuse_cut(sandwich.outputs)
            self._examined = True
        return sandwich


class GaussNewtonOperator(OutputSpaceOperator):
    """The generalized Gauss-Newton matrix G = J' B J of a problem, (N, N), positive semidefinite for convex losses.

    J is the Jacobian in the parameters of z, all that the loss receives of the model's output, and B the Hessian of the
    loss in z (Schraudolph 2002): the Hessian without the curvature of the model itself. Several tensors, in whatever
    structure, are one z, and B has blocks between them. For cross-entropy, z are the logits. The loss named `nll` is
    linear in the log-probabilities that it takes; they are taken for logits, which they are, so that nll and ce agree.
    torch's `NLLLoss` and `nll_loss` are taken as they are: linear in the output, so that G is zero.

    Args:
        problem: What is differentiated; it needs a loss of the output.
        check: Whether to look for random numbers and rewritten parameters before the first product,
            and to compare one with the linearized model.

    Raises:
        SpecError: if the problem has an objective, or computes a loss itself that is no known function of its logits.

    Example: a linear model has no curvature of its own, so G is the Hessian.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> GaussNewtonOperator(Problem(model, data=data, loss="mse")) @ torch.eye(2).double()
    tensor([[2., 4.],
            [4., 8.]], dtype=torch.float64)
    """

    matrix = "the Gauss-Newton matrix"

    def __init__(self, problem: Problem, *, check: bool = True) -> None:
        convex = problem.loss_of_output is not None and problem.loss_of_output.is_convex
        super().__init__(problem, gauss_newton, output_loss, semidefinite=convex, check=check)


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

    Raises:
        NoGaussNewtonError: if that cannot be differentiated twice.
    """
    assert problem.loss_of_output is not None
    name = problem.loss_of_output.name
    with evaluated(problem):
        z = output_of(problem, batch)
        leaves = [tensor.detach().requires_grad_() for tensor in z.tensors]
        value = scalar(function(problem.loss_of_output), z, leaves)
    slopes: tuple[Tensor | None, ...] = (None,) * len(leaves)
    try:
        if value.requires_grad:
            refuse_cut([value])
            slopes = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
            refuse_cut(slope for slope in slopes if slope is not None)
    except (NoDoubleBackwardError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and ran_out(error):
            raise
        raise _no_second_derivative(name, reason(error)) from error
    used = [place for place, slope in enumerate(slopes) if slope is not None]  # of what the loss may ignore
    inputs = [leaves[place] for place in used]
    curved = [
        (at, slope)
        for at, slope in enumerate(slopes[place] for place in used)
        if slope is not None and slope.requires_grad
    ]

    seen = False  # whether a product was looked at; one is enough, and a recorded one must not be

    def middle(vectors: list[Tensor]) -> list[Tensor]:
        nonlocal seen
        found: list[Tensor | None] = [None] * len(vectors)
        if curved:  # else the loss is linear in all that it receives
            try:
                found = batched_grad([slope for _, slope in curved], inputs, [vectors[at] for at, _ in curved])
            except RuntimeError as error:
                if len(vectors[0]) > 1 or ran_out(error):  # of several vectors, batching may be what fails
                    raise
                raise _no_second_derivative(name, reason(error)) from error
        if not seen and not _finite(found):
            raise _no_second_derivative(name, "it is NaN or infinite at this output, as of a norm or a root at zero")
        seen = True
        return [torch.zeros_like(like) if part is None else part for part, like in zip(found, vectors, strict=True)]

    return Sandwich(problem, tuple(z.tensors[place] for place in used), middle)
