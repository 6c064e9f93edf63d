"""Conjugate gradients on a damped quadratic model, ended early, as Newton methods for large problems use them."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import inner, safe_norm

Exit = Literal["interior", "negative curvature", "limit", "none"]


@dataclass(frozen=True)
class Truncated:
    """An approximate solution s of (A + damping) s = -g, and what the undamped model g's + s'As / 2 says of it.

    Attributes:
        step: s, (n,).
        residual: -g - (A + damping) s, (n,), as the recurrence has it.
        slope: g's; negative unless s is zero.
        curvature: s'As, from the residual, without a product.
        products: With A.
        exit: "interior" where the residual is as small as asked, "negative curvature" along which the model has no
            minimum (or none that rounding leaves), "limit" of products, "none" where a product was not finite.
    """

    step: Tensor
    residual: Tensor
    slope: float
    curvature: float
    products: int
    exit: Exit

    def predicted(self, share: float = 1.0) -> float:
        """Decrease of the undamped model along a share of the step.

        >>> round(conjugate_gradients(torch.eye(2), torch.tensor([3.0, 4.0])).predicted(0.5), 3)
        9.375
        """
        return -share * (self.slope + share * self.curvature / 2)


def conjugate_gradients(
    operator: SymmetricOperator,
    gradient: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float = 0.1,
    limit: int = 250,
    image: Tensor | None = None,
) -> Truncated:
    """Solve (A + damping) s = -g from zero (Hestenes and Stiefel 1952), with the stops of Dembo and Steihaug (1983).

    All that it does is relative to |g|, however small that is. Every iterate is a direction of descent. Where
    A + damping turns out not to be positive definite, it stops at the iterate that it has; at the first product it has
    none yet, and takes -g / (|c| + damping) with c = g'Ag / g'g, the saddle-free step on that line.

    Args:
        operator: A, symmetric, (n, n); with the damping it should be positive definite.
        gradient: g, (n,); not zero.
        damping: Added to the diagonal.
        tolerance: Of the residual's norm, relative to |g|.
        limit: Most products.
        image: A g / |g|, where it is known: it takes the place of the first product, and is not counted.

    Returns:
        The step, and what the model predicts for it.

    >>> A, g = torch.diag(torch.tensor([1.0, 4.0]).double()), torch.tensor([2.0, 4.0]).double()
    >>> found = conjugate_gradients(A, g, tolerance=1e-9)
    >>> found.step, found.products, found.exit, round(found.predicted(), 9)
    (tensor([-2.0000, -1.0000], dtype=torch.float64), 2, 'interior', 4.0)
    """
    spread = spread_of(operator)
    size, rounding = safe_norm(gradient, spread), torch.finfo(gradient.dtype).eps
    residual = gradient / -size
    direction, step = residual, torch.zeros_like(residual)
    squared, largest, products = inner(residual, residual, spread), 0.0, 0
    ended: Exit = "limit"
    while products < limit or image is not None:
        if image is not None:
            pushed, image = -image, None
        else:
            pushed, products = operator @ direction, products + 1
        length = inner(direction, direction, spread)
        bent = inner(direction, pushed, spread) + damping * length
        if not math.isfinite(bent):
            ended = "none"
            break
        largest = max(largest, safe_norm(pushed, spread) / math.sqrt(length))
        if bent <= rounding * largest * length:
            if direction is residual:
                scale = abs(bent / length - damping) + damping
                along = 1 / (scale if scale > rounding * largest else largest or 1.0)
                step, residual = along * direction, residual - along * (pushed + damping * direction)
            ended = "negative curvature"
            break
        along = squared / bent
        step, residual = step + along * direction, residual - along * (pushed + damping * direction)
        before, squared = squared, inner(residual, residual, spread)
        if math.sqrt(squared) <= tolerance:
            ended = "interior"
            break
        direction = residual + (squared / before) * direction
    slope = size * size * inner(step, gradient / size, spread)
    curvature = -slope - size * size * (inner(step, residual, spread) + damping * inner(step, step, spread))
    return Truncated(size * step, size * residual, slope, curvature, products, ended)
