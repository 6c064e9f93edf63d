"""What optimizers divide by, entry by entry: the diagonal P of each kind, from its state or from gradients alone.

Forms are those of `torch.optim` 2.13. P is what momentum is divided by, with the bias correction of the second moment.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.sharded.gradient import gradient_here
from hessdiag.errors import LoadError, SpecError
from hessdiag.optimizers.state.held import Held, number_of
from hessdiag.problem.problem import Problem

NEEDED: Mapping[str, tuple[str, ...]] = {
    "adam": ("step", "exp_avg_sq"),
    "adamw": ("step", "exp_avg_sq"),
    "nadam": ("step", "exp_avg_sq"),
    "radam": ("step", "exp_avg_sq"),
    "adamax": ("exp_inf",),
    "rmsprop": ("square_avg",),
    "adagrad": ("sum",),
    "adadelta": ("square_avg", "acc_delta"),
}
_BESIDE = {
    "adam": (("amsgrad", "max_exp_avg_sq"),),
    "adamw": (("amsgrad", "max_exp_avg_sq"),),
    "rmsprop": (("centered", "grad_avg"),),
}


@dataclass(frozen=True)
class Moments:
    """Of the gradients g_b of single batches, entry by entry, (N,), or of a sharded problem (own,).

    Attributes:
        mean: Of g_b.
        square: Mean of g_b^2.
        largest: Of |g_b|.
        batches: How many.
    """

    mean: Tensor
    square: Tensor
    largest: Tensor
    batches: int


def moments(problem: Problem) -> Moments:
    """One gradient of each batch, in float64."""
    total: Tensor | None = None
    square = largest = torch.zeros(())
    for batch in problem.data:
        gradient = gradient_here(problem.like(data=[batch]))
        if total is None:
            total, square, largest = gradient.clone(), gradient.square(), gradient.abs()
            continue
        total += gradient
        square += gradient.square()
        torch.maximum(largest, gradient.abs(), out=largest)
    assert total is not None
    count = len(problem.data)
    return Moments(total / count, square / count, largest, count)


def from_state(kind: str, held: Held, name: str) -> Tensor:
    """P of one parameter, in its shape, from what the optimizer accumulated.

    Args:
        kind: One of `NEEDED`.
        held: With a state.
        name: Of the parameter, for messages.

    Raises:
        LoadError: if the state lacks what this kind keeps.
    """
    group, state = held.group, held.state
    lacks = [key for key in NEEDED[kind] if not isinstance(state.get(key), (Tensor, int, float))]
    lacks += [key for asked, key in _BESIDE.get(kind, ()) if group.get(asked) and key not in state]
    if lacks:
        raise LoadError(
            f"the optimizer's state of {name} holds no {' and no '.join(lacks)}; it holds "
            f"{', '.join(sorted(map(str, state))) or 'nothing'}: that is no state of {kind}.",
            "--optimizer NAME --state FILE, with the optimizer that wrote it",
        )
    eps = number_of(group.get("eps", 0.0))
    sums: dict[str, Tensor] = {key: value.detach() for key, value in state.items() if isinstance(value, Tensor)}
    if kind == "adamax":
        return sums["exp_inf"]
    if kind == "rmsprop":
        centre = sums["grad_avg"].square() if group.get("centered") else 0.0
        return (sums["square_avg"] - centre).clamp(min=0).sqrt() + eps
    if kind == "adagrad":
        return sums["sum"].sqrt() + eps
    if kind == "adadelta":
        return ((sums["square_avg"] + eps) / (sums["acc_delta"] + eps)).sqrt()
    square = sums["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    step, beta2 = number_of(state["step"]), number_of(group["betas"][1])
    correction = 1.0 - float(beta2**step)
    if kind == "radam":
        rectified = rectification(step, beta2)
        return (square.sqrt() + eps) / (math.sqrt(correction) * rectified) if rectified else torch.ones_like(square)
    return (square / correction).sqrt() + eps


def rectification(step: float, beta2: float) -> float:
    """RAdam's factor of a step (Liu et al. 2020, equation 5): 0 in the first steps, which it takes without P.

    >>> rectification(3, 0.999), round(rectification(10_000, 0.999), 3)
    (0.0, 1.0)
    """
    most = 2 / (1 - beta2) - 1
    rho = most - 2 * step * beta2**step / (1 - beta2**step)
    if rho <= 5:
        return 0.0
    return math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))


def from_moments(kind: str, group: Mapping[str, Any], found: Moments, place: slice) -> Tensor:
    """P of one parameter, flat, as of an optimizer that stands still here for long.

    Args:
        kind: One of `NEEDED`.
        group: Settings.
        found: Of the gradients.
        place: Of the parameter in the parameter vector.

    Raises:
        SpecError: if the gradients alone do not tell.
    """
    eps = number_of(group.get("eps", 0.0))
    square = found.square[place]
    if kind == "adamax":
        return found.largest[place] + eps
    if kind == "adagrad":  # which sums: after one pass over the batches
        return (square * found.batches + number_of(group.get("initial_accumulator_value", 0.0))).sqrt() + eps
    if kind == "adadelta":
        raise SpecError(
            "Adadelta divides by the steps that it took, and gradients alone do not tell them.",
            "--state ckpt.pt#optimizer, with its state",
        )
    if kind == "rmsprop" and group.get("centered"):
        square = (square - found.mean[place].square()).clamp(min=0)
    return square.sqrt() + eps
