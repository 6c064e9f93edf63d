"""The first steps of gradient descent from where a race starts: do they lower the loss, or only learn a constant?

Biases of the last layer learn the best constant output within a few steps, and the loss falls meanwhile whether the
network learns anything or not. What is left of the gradient afterwards tells: on a plateau nearly nothing.
"""

import math
import time as clock
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.foretold.flow import slope, tried

FLAT = 0.04  # of the loss, in proportion: what weights that move by their own norm along the gradient would take
FALLEN = 0.98  # of the reference loss: below, something was learnt that is no constant
GRADIENTS = 40  # that the steps may take
FIRST, LONGEST = 0.01, 0.05  # of the weights' norm: the first step, and any
ENOUGH = 0.1  # of what a line along the gradient promises: a step that takes less is shortened
SHORTER, LONGER = 0.3, 2.0
LEARNT = 0.5  # of the slope, that one more step leaves while a constant is still being learnt


@dataclass(frozen=True)
class Descent:
    """Where it ended.

    Attributes:
        problem: With a copy of the model that has the weights at the end; as it was given, where no step was made.
        loss: There.
        gradient: There, (N,) in float64.
        steps: That were made.
        time: Sum of their lengths over the gradients': what gradient flow takes for it, about.
        steepness: `|g| |w|` there, over the reference loss: what the weights would take of it if they moved by their
            own norm and the loss were straight. Weights that are smaller than by torch's own initialization count as
            those, for it is deep networks that small weights make flat, and not a single layer.
        fell: Whether the loss fell below what a constant output reaches.
    """

    problem: Problem
    loss: float
    gradient: Tensor
    steps: int
    time: float
    steepness: float
    fell: bool

    @property
    def flat(self) -> bool:
        """Whether the gradient hardly moves it."""
        return not self.fell and self.steepness <= FLAT


def descended(
    problem: Problem, loss: float, gradient: Tensor, *, floor: float, reference: float, deadline: float = math.inf
) -> Descent:
    """Go down until the loss has fallen, or the gradient is next to nothing; or for 40 gradients.

    Steps of gradient descent, each as long as the curvature along the last one allows, and none longer than a twentieth
    of the weights.

    Args:
        problem: All data; its model is left alone.
        loss: Where it starts.
        gradient: There, (N,) in float64.
        floor: Loss that no model is below.
        reference: Smaller of the loss and that of the best constant output.
        deadline: When to end at the latest, by `time.monotonic`.
    """
    weights = torch.cat([parameter.detach().reshape(-1).double() for parameter in problem.parameters])
    scale = abs(reference - floor) or 1.0
    least = floor + FALLEN * (reference - floor)
    usual = math.sqrt(sum(one.shape[0] / 3 for one in problem.parameters if one.ndim > 1)) or 1.0

    def there(own: Problem, steps: int, time: float) -> Descent:
        steep = float(gradient.norm()) * max(float(weights.norm()), usual) / scale
        return Descent(own, loss, gradient, steps, time, steep, fell=steps > 0 and loss < least)

    here = there(problem, 0, 0.0)
    model = copied(problem.model) if float(gradient.norm()) else None
    if model is None:
        return here
    own = problem.like(model=model)
    at = partial(slope, own)
    taken, length = 0, math.inf
    while taken < GRADIENTS and clock.monotonic() < deadline and here.steepness:
        norm, size = float(gradient.norm()), float(weights.norm())
        length = min(length, (LONGEST if here.steps else FIRST) * (size or usual) / norm)
        ahead, other = tried(at, weights - length * gradient)
        taken += 1
        if not ahead <= loss - ENOUGH * length * norm**2:
            if here.flat:
                break
            length *= SHORTER
            continue
        before, kept = here, (weights, loss, gradient)
        turned = float(gradient @ (gradient - other))
        weights, loss, gradient = weights - length * gradient, ahead, other
        here = there(own, here.steps + 1, here.time + length)
        if before.flat and here.steepness > LEARNT * before.steepness:  # there was nothing left to learn
            here, (weights, loss, gradient) = before, kept
            break
        if here.fell:
            break
        length *= min(norm**2 / turned, LONGEST / FIRST) if turned > 0 else LONGER
    if here.steps:
        tried(at, weights)
    return here
