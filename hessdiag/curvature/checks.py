"""Self-checks of a matrix of second derivatives: is it symmetric, and is it the derivative of the gradient here?"""

import math
from dataclasses import replace
from typing import Any

import torch

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.point.examine import Examination, asymmetry
from hessdiag.errors import ComputeError
from hessdiag.machine import cost

__all__ = ["Examination", "examine"]

_SQUARABLE = (1e-140, 1e140)  # sizes whose squares, and those of their relative errors, float64 can hold


def examine(operator: CurvatureOperator[Any], seed: int = 0, *, squared: bool = False) -> Examination:
    """Check an operator's products and the point that they are taken at, once for a problem and its parameters.

    Args:
        operator: The matrix of second derivatives. Where autograd fails at a smooth point, it takes differences of
            gradients from now on, as do all others of the same problem.
        seed: Of the random vectors.
        squared: Refuse a matrix whose squared norms would vanish or overflow, in silence, even in float64.

    Returns:
        The checks by name, and the kind of point (docs/concepts/points.md). `hvp_symmetry` is the asymmetry
        |u'Hv - v'Hu| / (|u||Hv|) of random vectors; for the Hessian by double backward there is
        `hvp_finite_difference`, how far one of these products is from a difference of gradients; for products that are
        differences themselves `hvp_two_steps`, how far those of two step sizes disagree.

    Raises:
        ComputeError: with the size of its products, if those are refused.
    """
    found = operator.look(seed) if operator.scale is None else _in_metric(operator, seed)
    cost.begin()
    if squared and found.size and math.isfinite(found.size) and not _SQUARABLE[0] <= found.size <= _SQUARABLE[1]:
        raise ComputeError(
            f"products with {operator.matrix} are of size {found.size:.0e}: their squares are beyond float64.",
            f"--objective FILE.py:f that returns the loss times 1e{-round(math.log10(found.size)):+d}",
        )
    return found


def _in_metric(operator: CurvatureOperator[Any], seed: int) -> Examination:
    """The point and the matrix as they are without the metric, and the symmetry and the size of products in it."""
    found = operator.look(seed)
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn(operator.shape[0], 2, generator=generator).to(operator.device, operator.dtype)
    AV = operator.raw(V)
    size = float(AV.abs().max()) if bool(AV.isfinite().all()) else math.inf
    return replace(found.also({"metric_symmetry": asymmetry(V, AV)}), size=size)
