"""Whether an optimizer's second moments are those of this model here: against squared gradients of minibatches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.differences import loss_and_gradient
from hessdiag.errors import HessdiagError
from hessdiag.optimizers.state.held import OptimizerState
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches.minibatches import Minibatches
from hessdiag.problem.problem import Problem

MINIBATCHES = 20
LOW = 0.2  # right mappings had 0.32 to 0.91, swapped tensors of one shape -0.17 to 0.04
BETTER = 0.3  # by how much another tensor's v goes better with a gradient, where the two were swapped
TELLING = 16  # entries of a tensor below which a correlation may be chance
SQUARES = ("exp_avg_sq", "square_avg", "sum")


@dataclass(frozen=True)
class Likeness:
    """How the optimizer's log v goes with log g^2.

    Attributes:
        correlation: Over all entries; `None` where it cannot be told.
        swapped: Tensors in which it is below `LOW`, though the v of another of their shape goes with their gradient.
        gradients: That it took.
    """

    correlation: float | None
    swapped: tuple[str, ...]
    gradients: int


def likeness(problem: Problem, state: OptimizerState, seed: int = 0) -> Likeness:
    """Correlation of log v and log g^2, over all entries and tensor by tensor.

    Args:
        problem: Whose batches are cut into minibatches.
        state: Of Adam's kin, RMSprop or Adagrad.
        seed: Of the cut.
    """
    squares, taken = _squares(problem, seed)
    if squares is None:
        return Likeness(None, (), taken)
    pairs: list[tuple[str, Tensor, Tensor]] = []
    for (name, parameter), place in zip(problem.named_parameters, problem.places(), strict=True):
        held = state.of.get(name)
        v = None if held is None else next((held.state[key] for key in SQUARES if key in held.state), None)
        if v is not None and v.shape == parameter.shape:
            pairs.append((name, v.detach().reshape(-1).to(squares), squares[place]))
    if not pairs:
        return Likeness(None, (), taken)
    whole = correlation(torch.cat([v for _, v, _ in pairs]), torch.cat([g for _, _, g in pairs]))
    shapes = {name: tuple(parameter.shape) for name, parameter in problem.named_parameters}
    swapped = []
    for name, v, g in pairs:
        own = correlation(v, g) if v.numel() >= TELLING else None
        if own is None or own >= LOW:
            continue
        others = (correlation(other, g) for one, other, _ in pairs if one != name and shapes[one] == shapes[name])
        if any(found is not None and found > max(own, 0.0) + BETTER for found in others):
            swapped.append(name)
    return Likeness(whole, tuple(swapped), taken)


def correlation(v: Tensor, squares: Tensor) -> float | None:
    """Of the logarithms, where both are positive; `None` of fewer than three, or where one is constant.

    >>> correlation(torch.tensor([1.0, 10.0, 100.0]), torch.tensor([2.0, 20.0, 200.0]))
    1.0
    """
    kept = (v > 0) & (squares > 0) & torch.isfinite(v)
    a, b = (part[kept].double().log() for part in (v, squares))
    if len(a) < 3:
        return None
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return round(float(a @ b) / size, 12) if size else None


def _squares(problem: Problem, seed: int) -> tuple[Tensor | None, int]:
    """Mean of g^2 over minibatches, (N,), and how many there were."""
    size = max(problem.n_samples // MINIBATCHES, 1)
    count = sum(max(batches.samples(batch) // size, 1) for batch in problem.data)
    source = Minibatches(problem.data, seed, size)
    total, taken = None, 0
    for _ in range(min(count, MINIBATCHES)):
        try:
            gradient = loss_and_gradient(problem.like(data=[next(source)]))[1]
        except HessdiagError:  # of a piece in which no target counts
            continue
        taken += 1
        total = gradient.square() if total is None else total.add_(gradient.square())
    return None if total is None else total / taken, taken
