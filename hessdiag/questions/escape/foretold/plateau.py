"""Where a race starts: is this a plateau, a minimum, a dead network, or none of these?"""

import math

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.numbers import number, percent
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.constant import best_constant_loss
from hessdiag.questions.escape.extremes import ACCEPTED, extremes
from hessdiag.questions.escape.foretold.flow import followed, slope, typical
from hessdiag.questions.escape.result import Flow, Plateau

LIKE_A_CONSTANT = (0.95, 1.3)  # loss over that of the best constant output
HARDLY = 0.05  # of the loss: what a gradient may take of it on a plateau, in one step that curvature allows
NEARBY = 0.01  # of the weights' norm: such a step, where curvature is not known
FLAT = 1e-3  # of the largest curvature: a smallest eigenvalue above minus that is none of a saddle
GRADIENTS = 600  # along gradient flow, at most
TRIVIAL = 1e-9  # of the loss: where a constant output fits as well as that, its loss is no reference


def plateau_of(
    problem: Problem,
    *,
    seed: int,
    floor: float = 0.0,
    spectrum: bool = True,
    gradients: int = GRADIENTS,
    threshold: float = 0.9,
    deadline: float = math.inf,
) -> Plateau:
    """Look at where the race starts.

    Args:
        problem: All data, with running statistics and dropout masks frozen.
        seed: Of the network, for the record; and of the eigensolver's start.
        floor: The loss that no model is below.
        spectrum: Whether to measure both ends of the Hessian's spectrum, which costs up to 400 products.
        gradients: How many it may cost to follow gradient flow off the plateau; 0 does not follow it.
        threshold: Share of the way from `floor` to the reference loss down to which it is followed.
        deadline: When that ends at the latest, by `time.monotonic`.

    Raises:
        ComputeError: if loss or gradient cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.eye(2).double(), torch.tensor([[1.0], [3.0]]).double())]
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> found = plateau_of(Problem(model, data=data, loss="mse"), seed=0)
    >>> found.loss, found.constant_loss, found.reference, found.present
    (5.0, 1.0, 1.0, False)
    """
    loss, gradient = slope(problem)
    constant = best_constant_loss(problem)
    known = constant if constant is not None and constant - floor > TRIVIAL * abs(loss - floor) else None
    size = float(gradient.norm())
    lowest, highest = _ends(problem, seed) if spectrum else (None, None)
    weights = math.sqrt(sum(float(parameter.detach().double().square().sum()) for parameter in problem.parameters))
    reference = loss if known is None else min(loss, known)
    sharpest = max(abs(value) for value in (lowest, highest)) if lowest is not None and highest is not None else None
    dead = not size and not sharpest
    beyond = max(_taken(size, sharpest, weights) - (loss - reference), 0.0)  # a constant is learnt within a few steps
    takes = beyond / (abs(reference - floor) or 1.0)
    present = not dead and _constant(loss, known, floor) and takes <= HARDLY and not _minimum(lowest, highest)
    flow: Flow | None = None
    if present and size and sharpest and gradients:
        flow = followed(problem, sharpest, floor + threshold * (reference - floor), gradients, deadline)
    entry = typical(gradient)
    return Plateau(
        seed=seed,
        loss=loss,
        constant_loss=constant,
        reference=reference,
        gradient_norm=size,
        gradient_median=entry or None,
        gradient_zeros=float((gradient == 0).double().mean()),
        matrix_median=_of_matrices(problem, gradient),
        matrices=sum(parameter.ndim > 1 for parameter in problem.parameters),
        weight_norm=weights,
        floor=floor,
        lowest=lowest,
        highest=highest,
        flow=flow,
        present=present,
        dead=dead,
        says=_sentence(loss, known, size, lowest, highest, takes, present=present, dead=dead),
    )


def _ends(problem: Problem, seed: int) -> tuple[float | None, float | None]:
    """Smallest and largest eigenvalue of the Hessian; `None` for both where they cannot be had at this price."""
    try:
        pairs = extremes(HessianOperator(problem, check=False), lowest=1, highest=1, seed=seed)
    except (HessdiagError, RuntimeError):
        return None, None
    if pairs is None:
        return None, None
    values, residuals = pairs.values.tolist(), pairs.residuals.tolist()
    noise = max(pairs.rounding, ACCEPTED * max(map(abs, values)))
    if any(residual > noise for residual in residuals):
        return None, None
    return values[0], values[-1]


def _taken(size: float, sharpest: float | None, weights: float) -> float:
    """What one step along the gradient takes of the loss: the best of a parabola, or a short one of a line."""
    if sharpest is None:
        return size * NEARBY * weights
    return size**2 / (2 * sharpest) if sharpest else 0.0


def _constant(loss: float, constant: float | None, floor: float) -> bool:
    """Whether the loss is that of a constant output."""
    if constant is None:
        return True
    low, high = LIKE_A_CONSTANT
    return low * (constant - floor) <= loss - floor <= high * (constant - floor)


def _minimum(lowest: float | None, highest: float | None) -> bool:
    return lowest is not None and highest is not None and highest > 0 and lowest >= -FLAT * highest


def _of_matrices(problem: Problem, gradient: Tensor) -> float | None:
    """Median Frobenius norm over weight matrices, those without a gradient left out."""
    pairs = zip(problem.parameters, problem.places(), strict=True)
    norms = [float(gradient[place].norm()) for parameter, place in pairs if parameter.ndim > 1]
    there = sorted(norm for norm in norms if norm)
    return float(torch.tensor(there, dtype=torch.float64).median()) if there else None


def _sentence(
    loss: float,
    constant: float | None,
    size: float,
    lowest: float | None,
    highest: float | None,
    takes: float,
    *,
    present: bool,
    dead: bool,
) -> str:
    beside = "" if constant is None else f", and the best constant output has {number(constant)}"
    if dead:
        return (
            f"Dead: the gradient is exactly zero at the loss {number(loss)}{beside}. No optimizer moves it: initialize "
            "it anew."
        )
    if _minimum(lowest, highest) and takes <= HARDLY:
        return (
            f"No plateau but a minimum, or close to one: the gradient's norm is {number(size)}, and the smallest "
            f"eigenvalue of the Hessian is {number(lowest)} beside the largest, {number(highest)}."
        )
    if present:
        down = "" if lowest is None else f"; the most negative curvature is {number(lowest)}"
        return (
            f"On a plateau: the loss is {number(loss)}{beside}. The gradient's norm is {number(size)}, and one step "
            f"along it takes {percent(takes, 2)} of the loss{down}."
        )
    if takes > HARDLY:
        return (
            f"No plateau: one step along the gradient, of norm {number(size)}, takes {percent(takes, 2)} of the loss "
            f"{number(loss)}."
        )
    return f"No plateau: the loss is {number(loss)}{beside}."
