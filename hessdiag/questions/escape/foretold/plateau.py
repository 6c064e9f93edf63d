"""Where a race starts: is this a plateau, a minimum, a dead network, or none of these?"""

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.constant import best_constant_loss
from hessdiag.questions.escape.extremes import ACCEPTED, extremes
from hessdiag.questions.escape.foretold.dead import signs, silenced
from hessdiag.questions.escape.foretold.descent import Descent, descended
from hessdiag.questions.escape.foretold.flow import followed, slope, typical
from hessdiag.questions.escape.result import Flow, Plateau, State
from hessdiag.questions.escape.starts import sentence

TRAINED = 0.8  # of the best constant's loss: below, the network has learnt something already
FLAT = 1e-3  # of the largest curvature: a smallest eigenvalue above minus that is none of a saddle
FLATTER = 0.01  # of the most negative curvature: the first layer's mean, below which it is that of a plateau
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
    loss, first = slope(problem)
    constant = best_constant_loss(problem)
    known = constant if constant is not None and constant - floor > TRIVIAL * abs(loss - floor) else None
    reference = loss if known is None else min(loss, known)
    trained = known is not None and loss - floor < TRAINED * (known - floor)
    ends = -math.inf if trained else deadline
    there = descended(problem, loss, first, floor=floor, reference=reference, deadline=ends)
    spot, gradient = (there.problem, there.gradient) if there.flat else (problem, first)
    lowest, highest = _ends(spot, seed) if spectrum else (None, None)
    sharpest = max(abs(value) for value in (lowest, highest)) if lowest is not None and highest is not None else None
    silent = silenced(problem, first)
    state = _state(there, trained, silent, lowest, highest)
    flow: Flow | None = None
    if state == "plateau" and gradient.any() and sharpest and gradients:
        flow = followed(spot, sharpest, floor + threshold * (reference - floor), gradients, deadline)
        if flow is not None and flow.ended == "unfinished" and (gradients < GRADIENTS or time.monotonic() > deadline):
            flow = replace(flow, ended="late")
    found = Plateau(
        seed=seed,
        loss=loss,
        constant_loss=constant,
        reference=reference,
        gradient_norm=float(gradient.norm()),
        gradient_median=typical(gradient) or None,
        gradient_zeros=float((gradient == 0).double().mean()),
        matrix_median=_of_matrices(problem, gradient),
        matrices=sum(parameter.ndim > 1 for parameter in problem.parameters),
        weight_norm=math.sqrt(sum(float(parameter.detach().double().square().sum()) for parameter in spot.parameters)),
        floor=floor,
        lowest=lowest,
        highest=highest,
        flow=_later(flow, there.time),
        present=state == "plateau",
        dead=state == "dead",
        state=state,
        begins=there.steps if there.flat else 0,
        silent=silent,
    )
    dtype = str(problem.dtype).removeprefix("torch.")
    return replace(found, says=sentence(found, steepness=there.steepness, lowered=there.loss, dtype=dtype))


def _state(
    there: Descent, trained: bool, silent: tuple[str, ...], lowest: float | None, highest: float | None
) -> State:
    """What it is, by what the first steps found."""
    if silent:
        return "dead"
    if trained:
        return "trained"
    if not there.flat:
        return "slope"
    if lowest is None or highest is None or highest <= 0 or lowest < -FLAT * highest:
        return "plateau"
    return "minimum" if _curved(there.problem) > FLATTER * -lowest else "plateau"


def _curved(problem: Problem) -> float:
    """Mean curvature of the loss in its first weight matrix.

    Where signals vanish with depth, that is far below the most negative one, which falls with their size and not with
    its square; at a minimum of a network that can learn it is above.
    """
    pairs = zip(problem.parameters, problem.places(), strict=True)
    place = next((place for parameter, place in pairs if parameter.ndim > 1), slice(None))
    drawn = signs(problem)
    direction = torch.zeros_like(drawn)
    direction[place] = drawn[place]
    return float(direction @ (HessianOperator(problem, check=False) @ direction)) / float(direction @ direction)


def _later(flow: Flow | None, start: float) -> Flow | None:
    """Flow that began when the constant had been learnt."""
    return None if flow is None else replace(flow, time=tuple(start + (time or 0.0) for time in flow.time))


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


def _of_matrices(problem: Problem, gradient: Tensor) -> float | None:
    """Median Frobenius norm over weight matrices, those without a gradient left out."""
    pairs = zip(problem.parameters, problem.places(), strict=True)
    norms = [float(gradient[place].norm()) for parameter, place in pairs if parameter.ndim > 1]
    there = sorted(norm for norm in norms if norm)
    return float(torch.tensor(there, dtype=torch.float64).median()) if there else None
