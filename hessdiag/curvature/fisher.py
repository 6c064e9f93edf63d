"""Fisher information matrices of a problem as linear operators: the model's own, and the empirical one."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.gauss_newton import OutputSpaceOperator, Sandwich, gauss_newton, natural_loss
from hessdiag.curvature.received import Received, evaluated, output_of
from hessdiag.errors import ComputeError, SpecError
from hessdiag.problem import structure
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.losses import averages
from hessdiag.problem.problem import Problem


class FisherOperator(OutputSpaceOperator):
    """The Fisher information matrix of a problem, (N, N), positive semidefinite.

    By default the model's own ("type I") one: the expected outer product of log-likelihood gradients with the targets
    drawn from the model. Where the loss is a negative log-likelihood of an exponential family in its natural parameters
    (ce, bce, torch's PoissonNLLLoss; mse with the noise variance that its scale implies; nll with its log-probabilities
    for logits), that equals the Gauss-Newton matrix (Martens 2020, section 9), which is what is computed.

    With `empirical`, the gradients are taken at the data's own targets: sum_i w_i g_i g_i', with g_i the gradient of
    sample i's own loss and w_i its weight in the whole (1 / n for a mean, 1 for a sum). It is another matrix, and not
    the Hessian's approximation in general (Kunstner, Balles and Hennig 2019). A sample's loss is taken from the batch's
    output, so where samples mix (BatchNorm in training mode) its gradient contains the others' influence.

    Args:
        problem: What is differentiated; it needs a loss of the output.
        empirical: Targets from the data instead of the model.
        check: Whether to look for random numbers and rewritten parameters before the first product.

    Raises:
        SpecError: if the problem has no loss of the output, or one that is no known likelihood (unless `empirical`).

    Example: for a linear model and squared errors, residuals weigh the empirical matrix and not the other.

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> model.weight.data.fill_(1.0)
    tensor([[1.]], dtype=torch.float64)
    >>> problem = Problem(model, data=[(torch.ones(1, 1).double(), -2 * torch.ones(1, 1).double())], loss="mse")
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> float(FisherOperator(problem) @ one), float(FisherOperator(problem, empirical=True) @ one)
    (2.0, 36.0)
    """

    matrix = "the Fisher matrix"

    def __init__(self, problem: Problem, *, empirical: bool = False, check: bool = True) -> None:
        sandwich = _empirical if empirical else partial(gauss_newton, function=natural_loss)
        super().__init__(problem, sandwich, None if empirical else natural_loss, semidefinite=True, check=check)
        if not empirical and not is_likelihood(problem):
            raise SpecError(
                f"the loss {problem.loss_name} is not known to be a likelihood, so its Fisher matrix is not defined.",
                "--operator ggn, or --loss ce|nll|bce|mse",
            )


def is_likelihood(problem: Problem) -> bool:
    """Whether the loss is a negative log-likelihood whose Fisher matrix is the Gauss-Newton matrix."""
    loss = problem.loss_of_output
    return loss is not None and loss.is_likelihood


def _empirical(problem: Problem, batch: Any) -> Sandwich:
    """Each sample's loss as an output of its own: the outer products of their gradients are J' diag(w) J."""
    loss = problem.loss_of_output
    assert loss is not None
    values, counts = [], []
    with evaluated(problem):
        z = output_of(problem, batch)
        n = _samples(z)
        tensors, build = structure.flatten(z.output, constants=True)
        for index in range(n):
            one = partial(batches.rows, slice(index, index + 1), n)
            output, own = build([one(tensor) for tensor in tensors]), batches.map_tensors(one, z.target)
            if count := averages.of_loss(loss, (None, own), output).count:
                values.append(loss.function(output, own).reshape(()))
                counts.append(count)
        whole = float(loss.function(z.output, z.target).detach())
    if not values:
        raise ComputeError("every target of a batch is ignored (-100): there is no gradient to take.")
    each = torch.stack(values)
    shares = torch.tensor(counts, dtype=each.dtype, device=each.device)
    shares = torch.ones_like(shares) if problem.loss_reduction == "sum" else shares / shares.sum()
    _refuse_mixed(whole, shares * each.detach())

    def middle(vectors: list[Tensor]) -> list[Tensor]:
        return [vectors[0] * shares]

    return Sandwich(problem, (each,), middle)


def _samples(z: Received) -> int:
    """The length that all outputs and the target share.

    Raises:
        SpecError: if they share none: then no sample has outputs of its own.
    """
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in z.tensors}
    lengths |= {len(tensor) for tensor in batches.tensors(z.target) if tensor.ndim}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (*z.tensors, *batches.tensors(z.target)))
        raise SpecError(
            f"the empirical Fisher matrix needs one row per sample in all outputs and targets; here they are {shapes}.",
            "FisherOperator(problem), if the loss is a likelihood, or GaussNewtonOperator(problem)",
        )
    return lengths.pop()


def _refuse_mixed(whole: float, parts: Tensor) -> None:
    """Make sure that the batch's loss is made of its samples' losses.

    Raises:
        SpecError: if it is not: samples have no gradients of their own then.
    """
    apart = abs(float(parts.sum()) - whole)
    if not apart <= torch.finfo(parts.dtype).eps ** 0.5 * (float(parts.abs().sum()) + abs(whole)):
        raise SpecError(
            f"the loss of the batch is {whole:.6g}, and its samples' losses make {float(parts.sum()):.6g}: "
            "samples have no gradients of their own.",
            "Problem(..., reduction='sum') for a loss that sums; a loss without terms that couple samples",
        )
