"""What a constant output is worth: the loss that a network has to get below before it has learnt anything."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from hessdiag.errors import HessdiagError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.losses.loss import IGNORED, Loss
from hessdiag.problem.problem import Problem

CLASSES = ("ce", "nll")
BINARY = ("bce", "bce_probabilities")
MOST_OUTPUTS = 10_000  # numbers of one sample's output, up to which the best constant is searched for
OF_THE_MODEL = (TypeError, ValueError, AttributeError, KeyError)  # one that computes its loss may want its targets
ITERATIONS = 100  # of a quasi-Newton method on as many numbers


def counted_targets(target: Tensor, ignored: int = IGNORED) -> Tensor:
    """Targets of a loss over classes that count, in one row; shares of classes as they are."""
    flat = target.detach().reshape(-1)
    return flat if flat.is_floating_point() else flat[flat != ignored]


def constant_loss(kind: str, target: Tensor, ignored: int = IGNORED) -> float | None:
    """The mean loss of the best constant output in closed form; `None` where there is none, or targets do not fit.

    Args:
        kind: Of `criteria.Kind`, without weights of classes and without smoothed labels.
        target: Samples first; of classes, whole numbers.
        ignored: The class that does not count.

    Example: the entropy of the classes, the variance of each output.

    >>> round(constant_loss("ce", torch.tensor([0, 1, 1, 1])), 4), constant_loss("mse", torch.tensor([[0.0], [2.0]]))
    (0.5623, 1.0)
    """
    if kind in CLASSES:
        counted = counted_targets(target, ignored)
        if counted.is_floating_point() or not counted.numel():
            return None
        counts = torch.unique(counted, return_counts=True)[1].double()
        shares = counts / counts.sum()
        return float(-(shares * shares.log()).sum())
    values = target.detach().double()
    if not values.numel():
        return None
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if kind == "mse":
        return float((rows - rows.mean(0)).square().mean())
    if kind in BINARY and bool(((rows >= 0) & (rows <= 1)).all()):
        share = rows.mean(0)
        return float(-(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)).mean())
    return None


def best_constant_loss(problem: Problem) -> float | None:
    """The smallest value of a problem's objective over outputs that are the same for all samples.

    In closed form where there is one; else by a search over the numbers of one output, from the mean of what the model
    puts out, which ends in the same place every time.

    Returns:
        The loss; `None` for an objective that is no known function of output and target.

    >>> data = [(torch.ones(4, 1), torch.tensor([[0.0], [0.0], [0.0], [4.0]]))]
    >>> half = lambda output, target: (output - target).square().mean() / 2
    >>> round(best_constant_loss(Problem(torch.nn.Linear(1, 1), data, loss=half)), 6)
    1.5
    """
    try:
        loss = problem.loss_of_output
        parts = None if loss is None else [_part(problem, loss, batch) for batch in problem.data]
    except (HessdiagError, RuntimeError, *OF_THE_MODEL):
        return None
    if loss is None or parts is None or any(not isinstance(part, Tensor) for pair in parts for part in pair):
        return None
    return _closed(loss, parts) if _plain(loss, parts) else _searched(problem, loss, parts)


def _part(problem: Problem, loss: Loss, batch: Any) -> tuple[Any, Any]:
    received, target = loss.received(problem.output(batch)), batches.split(batch)[1]
    return (received.detach() if isinstance(received, Tensor) else received), target


def _plain(loss: Loss, parts: list[tuple[Any, Any]]) -> bool:
    """Whether the closed form is of this loss: a mean without weights, of outputs and targets that match."""
    if not loss.is_plain or loss.reduction != "mean":
        return False
    weighted = any(loss.options.get(name) is not None for name in ("weight", "pos_weight"))
    if weighted or loss.options.get("label_smoothing"):
        return False
    if loss.kind in CLASSES:
        return all(not target.is_floating_point() for _, target in parts)
    shapes = {target.shape[1:] for _, target in parts}
    return (
        loss.kind in ("mse", *BINARY) and len(shapes) == 1 and all(out.shape == target.shape for out, target in parts)
    )


def _closed(loss: Loss, parts: list[tuple[Any, Any]]) -> float | None:
    ignored = int(loss.options.get("ignore_index", IGNORED))
    targets = [counted_targets(target, ignored) if loss.kind in CLASSES else target for _, target in parts]
    return constant_loss(loss.kind or "", torch.cat(targets), ignored)


def _searched(problem: Problem, loss: Loss, parts: list[tuple[Any, Any]]) -> float | None:
    """By L-BFGS in float64."""
    shapes = {out.shape[1:] for out, _ in parts}
    if len(shapes) != 1 or not parts[0][0].ndim or not parts[0][0].is_floating_point():
        return None
    wide = [(out.double(), target.double() if target.is_floating_point() else target) for out, target in parts]
    start = torch.cat([out for out, _ in wide]).mean(0)
    if start.numel() > MOST_OUTPUTS:
        return None
    weights = problem.batch_weights

    def value(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        constant = torch.from_numpy(numbers).to(start).view_as(start).requires_grad_()
        with torch.enable_grad():
            pairs = zip(weights, wide, strict=True)
            terms = [weight * loss.function(constant.expand_as(out), target) for weight, (out, target) in pairs]
            total = torch.stack(terms).sum()
            (slope,) = torch.autograd.grad(total, constant)
        return float(total.detach()), slope.reshape(-1).cpu().numpy()

    options = {"maxiter": ITERATIONS, "ftol": 1e-15, "gtol": 1e-12}
    try:
        found = float(
            minimize(value, start.reshape(-1).cpu().numpy(), jac=True, method="L-BFGS-B", options=options).fun
        )
    except (
        HessdiagError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # of the user's loss, which wants its own dtype or shape
        return None
    return found if math.isfinite(found) else None
