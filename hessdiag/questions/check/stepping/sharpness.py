"""The largest eigenvalue of the Hessian by a few products, where a gradient is cheap."""

import torch

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.linalg.tridiagonal import tridiagonalize
from hessdiag.problem.problem import Problem

PRODUCTS = 12
SECONDS = 0.3  # for all of them; a product takes about as long as two gradients, one step as long as one


def lambda_max(problem: Problem, pace: float) -> float | None:
    """A lower bound of the largest eigenvalue, of the first batch, usually within a few percent of it.

    `None` where products would take too long, the model has no second derivative, or some of its modules are in
    training mode and others are not: the Hessian is of one mode.

    Args:
        problem: Model, batches and loss.
        pace: Seconds of a step of an optimizer.
    """
    modes = {module.training for module in problem.model.modules()}
    if 2 * PRODUCTS * pace > SECONDS or (len(modes) > 1 and not problem.train_mode):
        return None
    try:
        alike = problem.as_written(data=problem.data[:1], train_mode=problem.train_mode or modes == {True})
        operator = HessianOperator(alike, check=False)
        start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(problem.seed))
        found = tridiagonalize(operator, start, PRODUCTS)
        operator.forget()
    except (HessdiagError, RuntimeError, NotImplementedError, TypeError):
        return None
    values = torch.linalg.eigvalsh(found.matrix()) if int(found.steps[0]) else torch.zeros(1)
    largest = float(values[-1])
    return largest if largest == largest and abs(largest) != float("inf") else None
