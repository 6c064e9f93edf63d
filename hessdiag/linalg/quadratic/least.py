"""The least of a quadratic or cubic model in growing Krylov spaces."""

import math
from typing import Protocol

import numpy as np

from hessdiag.linalg.quadratic.lanczos import Lanczos, Vector
from hessdiag.linalg.quadratic.step import Exit, ModelStep

_ITERATIONS = 200  # of a scalar equation: halving alone needs fewer
_ROUNDING = 4 * float(np.finfo(np.float64).eps)
_LEAST = float(np.finfo(np.float64).tiny)


class Reach(Protocol):
    """How long a step is that solves (B + lambda)s = -g, in its unit.

    Attributes:
        share: Of lambda ||s||^2 in the decrease, beside a half of -g's.
        end: How a step ends that nothing else ended.
    """

    share: float
    end: Exit

    def length(self, shift: float) -> tuple[float, float]:
        """For a lambda, with the derivative."""

    def excess(self, norm: float, lowest: float) -> float:
        """Of lambda beyond what it is at least, were the gradient this long and along the lowest eigenvector."""


class Ball:
    """As long as the radius, 1."""

    share = 1 / 2
    end: Exit = "boundary"

    def length(self, shift: float) -> tuple[float, float]:
        """Always the same."""
        return 1.0, 0.0

    def excess(self, norm: float, lowest: float) -> float:
        """(lowest + lambda) length = norm."""
        return max(norm - max(lowest, 0.0), 0.0)


class Cube:
    """As long as the cubic term of weight 1 lets it: lambda."""

    share = 1 / 6
    end: Exit = "interior"

    def length(self, shift: float) -> tuple[float, float]:
        """As long as lambda."""
        return shift, 1.0

    def excess(self, norm: float, lowest: float) -> float:
        """(lowest + lambda) lambda = norm."""
        half = abs(lowest) / 2
        return norm / (half + math.hypot(half, math.sqrt(norm))) if norm else 0.0


def least(space: Lanczos, reach: Reach, unit: float, limit: float) -> ModelStep:
    """Grow a Krylov space until the residual of the least of the model in it is within a limit.

    Args:
        space: With a gradient that is not zero.
        reach: How long the step may be.
        unit: Of its length: the radius, or what the cubic term alone would make of the gradient.
        limit: Relative to the gradient.
    """
    factor, end = unit / space.size, reach.end  # with s = unit x and g = size e_1, B counts so many times
    while True:
        open_ended = space.grow()
        values, first = factor * space.values, space.vectors[0]
        found, shift = _shifted(values, first, reach)
        weights = space.vectors @ found
        converged = factor * space.coupling * abs(weights[-1]) <= limit
        if converged or not open_ended:
            break
    if not converged:
        end = "limit"
    elif values[0] < 0:
        end = "negative curvature"
    elif shift == 0:
        end = "interior"
    length = float(np.linalg.norm(found))
    fallen = reach.share * shift * length**2 - float(first @ found) / 2
    return ModelStep(space.combined(unit * weights), fallen * unit * space.size, end, space.products, unit * length)


def _shifted(values: Vector, gradient: Vector, reach: Reach) -> tuple[Vector, float]:
    """The solution of (B + lambda)y = -g as long as the reach, and lambda, in the eigenbasis of B.

    Newton's iteration on 1/||y|| - 1/length, which is nearly linear in lambda (Hebden 1973), kept within a bracket.
    """
    lowest = float(values[0])
    least = max(-lowest, 0.0)  # of lambda
    heights = values - lowest if lowest < 0 else values
    bottom = heights == heights[0]
    low = reach.excess(float(np.linalg.norm(gradient[bottom])), lowest)
    high = reach.excess(float(np.linalg.norm(gradient)), lowest)
    excess = low
    if low == 0:  # the step of the least lambda may be short enough
        found = -np.divide(gradient, heights, out=np.zeros_like(gradient), where=heights > 0)
        short, (length, _) = float(np.linalg.norm(found)), reach.length(least)
        if short <= length:
            if least:  # the hard case: what is left of the length goes along the lowest eigenvector
                found[0] += math.sqrt(max(length**2 - short**2, 0.0))
            return found, least
        excess = 0.0 if heights[0] > 0 else high / 2
    for _ in range(_ITERATIONS):
        found = -gradient / (heights + excess)
        norm, (length, slope) = float(np.linalg.norm(found)), reach.length(least + excess)
        low, high = (excess, high) if norm > length else (low, excess)
        if abs(norm - length) <= _ROUNDING * length or high - low <= _ROUNDING * high:
            break
        bend = float(found**2 @ (1 / (heights + excess))) / norm**3 + slope / max(length, _LEAST) ** 2
        excess -= (1 / norm - 1 / max(length, _LEAST)) / bend
        if not low < excess < high:
            excess = math.sqrt(low * high) if low > 0 else high / 2
    return found, least + excess
