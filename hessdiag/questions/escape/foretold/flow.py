"""Gradient flow off a plateau, followed along the network itself.

On a plateau gradient descent takes many tiny steps, and all that they add up to is the time of the flow w' = -g(w).
That depends on no learning rate, and a method with an error estimate follows it in few gradients however flat it is:
its steps grow as gradients vanish. On piecewise-linear networks the flow crosses kinks, at which no step is small
enough for the estimate; there it takes steps that would keep gradient descent stable, as that would.
"""

import math
import time as clock
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from hessdiag.errors import HessdiagError
from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.result import Flow

TURN = 0.25  # of the gradient, by which it may change along half a step
STABLE = 0.05  # over the largest curvature where it starts: a step that is never too long there
CRAWL, STRIDE = 1e-3, 0.05  # of the weights' norm: how far a step goes that is not shortened, and at most
GROW, SHRINK = 3.0, 0.3  # a step's length from one to the next

Slope = Callable[[Tensor], tuple[float, Tensor]]


def followed(
    problem: Problem, curvature: float, until: float, gradients: int, deadline: float = math.inf
) -> Flow | None:
    """Follow gradient flow from where the problem is, on a copy of its model.

    Heun's method; where the gradient turns by more than twice `TURN`, as at kinks, Euler's.

    Args:
        problem: All data.
        curvature: Largest size of an eigenvalue of the Hessian here.
        until: The loss at which the plateau is left.
        gradients: How many it may take.
        deadline: When to end at the latest, by `time.monotonic`.

    Returns:
        The way; `None` for a model that cannot be copied, or without curvature.
    """
    model = copied(problem.model)
    if model is None or not curvature > 0:
        return None
    own = problem.like(model=model)
    start = torch.cat([parameter.detach().reshape(-1).double() for parameter in own.parameters])
    try:
        return _way(lambda weights: slope(own, weights), start, curvature, until, gradients, deadline)
    except (HessdiagError, RuntimeError):
        return None


def slope(problem: Problem, weights: Tensor | None = None) -> tuple[float, Tensor]:
    """The loss of all batches and its gradient (N,) in float64, at other weights (N,) where those are given.

    The problem's parameters are then set to them.
    """
    if weights is not None:
        with torch.no_grad():
            for parameter, place in zip(problem.parameters, problem.places(), strict=True):
                parameter.copy_(weights[place].view_as(parameter))
    total, gradient = 0.0, torch.zeros(problem.n_parameters, dtype=torch.float64, device=problem.device)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        value = problem.evaluate(batch)
        total += weight * float(value.detach())
        if not value.requires_grad:
            continue
        with problem.evaluation():  # checkpointed parts of the model run again here
            parts = torch.autograd.grad(value, problem.parameters, materialize_grads=True, allow_unused=True)
        gradient += weight * torch.cat([part.reshape(-1).double() for part in parts])
    return total, gradient


def typical(gradient: Tensor) -> float:
    """Median size of a gradient's entries, zeros left out; 0 where all are."""
    sizes = gradient[gradient != 0].abs()
    return float(sizes.median()) if sizes.numel() else 0.0


def _way(at: Slope, weights: Tensor, curvature: float, until: float, most: int, deadline: float) -> Flow:
    loss, gradient = at(weights)
    size, taken, time, length = float(weights.norm()), 1, 0.0, 0.0
    rows = [(time, loss, typical(gradient), length)]
    step = 2 * STABLE / curvature
    ended: Literal["out", "dead", "unfinished"] = "unfinished"
    while taken < most and clock.monotonic() < deadline:
        norm = float(gradient.norm())
        if not norm:
            ended = "dead"
            break
        least = min(STABLE / curvature, CRAWL * size / norm)
        step = min(max(step, least), STRIDE * size / norm)
        ahead = weights - step * gradient
        there, other = tried(at, ahead)
        taken += 1
        turn = float((other - gradient).norm()) / (2 * norm) if math.isfinite(there) else math.inf
        if math.isfinite(there) and (turn <= TURN or step <= least * (1 + 1e-9)):
            if turn <= 2 * TURN:
                ahead = weights - step / 2 * (gradient + other)
                there, other = at(ahead)
                taken += 1
            time, length = time + step, length + float((ahead - weights).norm())
            weights, loss, gradient = ahead, there, other
            rows.append((time, loss, typical(gradient), length / size if size else 0.0))
            if loss <= until:
                ended = "out"
                break
        elif step <= least * (1 + 1e-9):
            break  # no number even there
        step *= min(GROW, max(SHRINK, 0.8 * TURN / max(turn, 1e-9)))
    times, losses, entries, lengths = zip(*rows, strict=True)
    return Flow(time=times, loss=losses, gradient=entries, travelled=lengths, ended=ended, gradients=taken)


def tried(at: Slope, weights: Tensor) -> tuple[float, Tensor]:
    """As `at`, with an infinite loss where it is no number."""
    try:
        return at(weights)
    except HessdiagError:
        return math.inf, torch.zeros_like(weights)
