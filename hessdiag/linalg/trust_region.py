"""Steps that minimize a quadratic model of a function where it can be trusted, by products with its matrix.

The model is m(s) = g's + s'Bs/2 with B any symmetric matrix, definite or not. Lengths are ||s||_M = sqrt(s'Ms).
All but products and vectors is computed in float64, in units of the gradient and of the radius: entries of 1e-30 do no
harm in float32. Where vectors of the matrix are spread over processes, gradient, diagonal metric and step are pieces.
"""

import math

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.quadratic.lanczos import Lanczos
from hessdiag.linalg.quadratic.least import Ball, Cube, least
from hessdiag.linalg.quadratic.metric import Metric
from hessdiag.linalg.quadratic.step import Exit, ModelStep, finite, size_of
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import inner, safe_norm


def steihaug(
    operator: SymmetricOperator,
    gradient: Tensor,
    radius: float,
    *,
    metric: Tensor | None = None,
    tolerance: float = 0.1,
    theta: float = 0.0,
    most: int = 50,
) -> ModelStep:
    """Minimize a quadratic model within a radius, by conjugate gradients that stop at the boundary.

    Steihaug (1983) and Toint (1981), with the metric as the preconditioner. For a positive definite matrix at least
    half of what can be had; along negative curvature the first that is met, which may be far from the best: `gltr`.

    Args:
        operator: B, symmetric, (n, n). It is taken as it is, without a look at its symmetry: each product counts.
        gradient: g, (n,). Where it is zero the step is zero, whatever the curvature.
        radius: Of the region, ||s||_M <= radius.
        metric: M, the positive diagonal of a matrix (n,), or the whole positive definite matrix (n, n). Default: 1.
        tolerance: Of the residual Bs + g of a step inside, relative to the gradient.
        theta: The tolerance becomes min(tolerance, |g|^theta): faster than linear near a minimum.
        most: Products.

    Raises:
        TypeError: if the gradient is not of real numbers in floating point.
        ValueError: if the radius or the metric is not positive, or shapes do not fit.
        ComputeError: if the gradient or a product is not finite.

    >>> found = steihaug(torch.diag(torch.tensor([2.0, 4.0])), torch.tensor([-2.0, 0.0]), 5.0)
    >>> found.step.tolist(), found.decrease, found.exit, found.products
    ([1.0, 0.0], 1.0, 'interior', 1)
    """
    _refuse(operator, gradient, radius, "radius")
    spread = spread_of(operator)
    scales, size = Metric(metric, spread), size_of(gradient, spread=spread)
    if size == 0:
        return ModelStep(torch.zeros_like(gradient), 0.0, "interior", 0, 0.0)
    # In units: s = radius x and g = size r at the start, so that B counts `unit` times.
    unit, limit = radius / size, min(tolerance, size**theta)
    residual = gradient / size
    ahead = scales.solve(residual)
    x, direction = torch.zeros_like(residual), -ahead
    slope = inner(residual, ahead, spread)
    inside, across, along = 0.0, 0.0, slope  # x'Mx, x'Mp and p'Mp
    fallen, start = 0.0, safe_norm(residual, spread)
    for product in range(1, most + 1):
        image = operator @ direction
        curvature = unit * finite(inner(direction, image, spread))
        share = slope / curvature if curvature > 0 else math.inf
        if curvature <= 0 or inside + share * (2 * across + share * along) >= 1:
            share = _to_boundary(inside, across, along)
            fallen += share * (slope - share * curvature / 2)
            way: Exit = "boundary" if curvature > 0 else "negative curvature"
            step = x.add_(direction, alpha=share).mul_(radius)
            return ModelStep(step, fallen * radius * size, way, product, radius)
        x.add_(direction, alpha=share)
        residual.add_(image, alpha=share * unit)
        fallen += share * slope / 2
        inside += share * (2 * across + share * along)
        ahead = scales.solve(residual)
        last, slope = slope, inner(residual, ahead, spread)
        if safe_norm(residual, spread) <= limit * start:
            return ModelStep(x.mul_(radius), fallen * radius * size, "interior", product, radius * math.sqrt(inside))
        turn = slope / last
        across = turn * (across + share * along)
        along = slope + turn**2 * along
        direction.mul_(turn).sub_(ahead)
    return ModelStep(x.mul_(radius), fallen * radius * size, "limit", most, radius * math.sqrt(inside))


def gltr(
    operator: SymmetricOperator,
    gradient: Tensor,
    radius: float,
    *,
    metric: Tensor | None = None,
    tolerance: float = 0.1,
    theta: float = 0.0,
    most: int = 50,
    seed: int = 0,
) -> ModelStep:
    """Minimize a quadratic model within a radius, by Lanczos: the exact minimum in each Krylov space.

    Gould, Lucidi, Roma and Toint (1999), with every vector orthogonalized against all before it. It follows negative
    curvature as far as that pays, at the price of the vectors of all products: `most` times n numbers.

    Args:
        operator: B, symmetric, (n, n). It is taken as it is, without a look at its symmetry: each product counts.
        gradient: g, (n,). Where it is zero, Lanczos starts from the image of a random vector, and the step is along the
            lowest eigenvector that it finds of B, relative to M, if its eigenvalue is negative.
        radius: Of the region, ||s||_M <= radius.
        metric: M, the positive diagonal of a matrix (n,), or the whole positive definite matrix (n, n). Default: 1.
        tolerance: Of the residual (B + lambda M)s + g, relative to the gradient, both in the norm of the inverse of M.
        theta: The tolerance becomes min(tolerance, |g|^theta): faster than linear near a minimum.
        most: Products.
        seed: Of the random vector.

    Raises:
        TypeError: if the gradient is not of real numbers in floating point.
        ValueError: if the radius or the metric is not positive, or shapes do not fit.
        ComputeError: if the gradient or a product is not finite.

    >>> found = gltr(torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([0.5, 0.0]), 1.0)
    >>> found.step.tolist(), found.decrease, found.exit  # the gradient knows nothing of the other axis
    ([-0.5, 0.0], 0.125, 'interior')
    """
    _refuse(operator, gradient, radius, "radius")
    space = Lanczos(operator, gradient, Metric(metric, spread_of(operator)), most, seed)
    if space.size == 0:
        lowest = space.lowest(tolerance)
        return space.downhill(radius if lowest < 0 else 0.0, -lowest * radius**2 / 2)
    return least(space, Ball(), radius, min(tolerance, space.size**theta))


def cubic(
    operator: SymmetricOperator,
    gradient: Tensor,
    sigma: float,
    *,
    metric: Tensor | None = None,
    tolerance: float = 0.1,
    theta: float = 0.0,
    most: int = 50,
    seed: int = 0,
) -> ModelStep:
    """Minimize the cubic model g's + s'Bs/2 + sigma ||s||_M^3 / 3, by Lanczos: the exact minimum in each Krylov space.

    Cartis, Gould and Toint (2011), Kohler and Lucchi (2017): the cubic term is an overestimate of what the quadratic
    model leaves out, in place of a radius.

    Args:
        operator: B, symmetric, (n, n). It is taken as it is, without a look at its symmetry: each product counts.
        gradient: g, (n,). Where it is zero, see `gltr`.
        sigma: Weight of the cubic term, positive.
        metric: M, the positive diagonal of a matrix (n,), or the whole positive definite matrix (n, n). Default: 1.
        tolerance: Of the residual of the model's gradient, as in `gltr`.
        theta: See there.
        most: Products.
        seed: Of the random vector.

    Returns:
        The step, and by how much the cubic model falls with it; `exit` is "interior" where B is positive definite in
        the Krylov space.

    Raises:
        TypeError: if the gradient is not of real numbers in floating point.
        ValueError: if sigma or the metric is not positive, or shapes do not fit.
        ComputeError: if the gradient or a product is not finite.

    >>> found = cubic(torch.zeros(1, 1), torch.tensor([4.0]), 1.0)
    >>> found.step.tolist(), round(found.decrease, 3)  # -4 s + s^3 / 3 is least at s = 2
    ([-2.0], 5.333)
    """
    _refuse(operator, gradient, sigma, "weight of the cubic term")
    space = Lanczos(operator, gradient, Metric(metric, spread_of(operator)), most, seed)
    if space.size == 0:
        length = -space.lowest(tolerance) / sigma
        return space.downhill(length, sigma * length**3 / 6)
    return least(space, Cube(), math.sqrt(space.size / sigma), min(tolerance, space.size**theta))


def _to_boundary(inside: float, across: float, along: float) -> float:
    """How far it is from x along p to the boundary x'Mx = 1, without cancellation."""
    left = max(1 - inside, 0.0)
    root = math.sqrt(across**2 + along * left)
    return left / (across + root) if across > 0 else (root - across) / along


def _refuse(operator: SymmetricOperator, gradient: Tensor, number: float, name: str) -> None:
    if not gradient.is_floating_point():
        raise TypeError(f"the gradient is of {gradient.dtype}, and must be of real numbers in floating point")
    if gradient.ndim != 1 or len(gradient) != spread_of(operator).own or len(set(operator.shape)) > 1:
        raise ValueError(
            f"a gradient of shape {tuple(gradient.shape)} does not fit a matrix of shape {tuple(operator.shape)}"
        )
    if not number > 0:
        raise ValueError(f"the {name} is {number:g}, and must be positive")
