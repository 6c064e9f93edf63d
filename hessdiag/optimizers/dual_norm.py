"""How near to its edge an optimizer is whose steps have one size whatever the gradient's, such as Muon.

Its threshold is none of an eigenvalue. Along one step d, `loss(w - lr d)` changes by `-lr <g, d> (1 - R)` up to second
order, with `R = lr d'Hd / (2 <g, d>)`: the loss falls while R < 1. Over all steps that Muon could take, the largest
d'Hd takes the place of an eigenvalue: S, with the threshold 2 |g|_* / lr, where |g|_* is the sum of the layers' nuclear
norms (Islamov et al., arXiv 2603.05002, whose steps are scaled by |g|_*; torch's are not, and lr / |g|_* takes the
place of their step). Both are of steps without momentum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.sharded.vectors import put, tensor_of
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import inner
from hessdiag.optimizers.preconditioning import Preconditioning
from hessdiag.optimizers.state.held import number_of
from hessdiag.problem.problem import Problem

PRODUCTS = 15
SETTLED = 1e-3  # relative gain of a step of the search that is not worth another


@dataclass(frozen=True)
class DualNorm:
    """S and what it is held against.

    Attributes:
        sharpness: S, the largest d'Hd that was found over the steps d that Muon can take, of learning rate one: a lower
            bound of the true one.
        dual: |g|_*, the gradient's norm that belongs to these steps.
        products: With the Hessian, that it took.
    """

    sharpness: float
    dual: float
    products: int


def dual_norm(
    problem: Problem,
    operator: SymmetricOperator,
    gradient: Tensor,
    made: Preconditioning,
    *,
    most: int = PRODUCTS,
    seed: int = 0,
) -> DualNorm | None:
    """S and |g|_*, for the matrices that Muon steps.

    d'Hd is maximized over the ball of spectral norms by D <- polar(H D), matrix by matrix, from the gradient's own
    polar factor, and from random ones for the other half of the products.

    Args:
        problem: What is trained.
        operator: Its Hessian.
        gradient: Its gradient, (N,); of a sharded problem this process's pieces, and matrices are gathered one by one.
        made: Muon, of `preconditioning`.
        most: Products in all.
        seed: Of the random starts.

    Returns:
        Both; `None` where the gradient of these matrices is zero, or Muon steps none of them.
    """
    parts = _matrices(problem, made)
    lr = max((radius for _, radius, _ in parts), default=0.0)

    def matrix(vector: Tensor, index: int) -> Tensor:
        return tensor_of(problem, vector, index).double()

    norms = [float(torch.linalg.svdvals(matrix(gradient, index)).sum()) for index, _, _ in parts]
    dual = sum(radius * scale * norm for (_, radius, scale), norm in zip(parts, norms, strict=True))
    if not dual:
        return None

    def polar(vector: Tensor) -> Tensor:
        found = torch.zeros_like(vector)
        for index, radius, scale in parts:
            left, _, right = torch.linalg.svd(matrix(vector, index), full_matrices=False)
            put(problem, found, index, radius * scale * (left @ right))
        return found

    source = torch.Generator().manual_seed(seed)
    best, products = _climbed(operator, polar, gradient, most // 2)
    while products < most:
        noise = spread_of(operator).kept(lambda count: torch.randn(count, generator=source, dtype=torch.float64))
        found, spent = _climbed(operator, polar, noise.to(gradient), most - products)
        best, products = max(best, found), products + spent
    return DualNorm(best / lr**2, dual / lr, products)


def _climbed(
    operator: SymmetricOperator, polar: Callable[[Tensor], Tensor], start: Tensor, most: int
) -> tuple[float, int]:
    """The largest d'Hd that the search comes upon from a start, and the products that it took."""
    d, last, best = polar(start), -math.inf, 0.0
    for products in range(1, most + 1):
        image = operator @ d
        value = inner(d, image, spread_of(operator))
        best = max(best, value)
        if value - last <= SETTLED * abs(value):
            return best, products
        d, last = polar(image), value
    return best, most


def _matrices(problem: Problem, made: Preconditioning) -> list[tuple[int, float, float]]:
    """Of each matrix that Muon steps: which parameter it is, learning rate, and torch's factor for its shape."""
    found: list[tuple[int, float, float]] = []
    of = {} if made.held is None else made.held.of
    for index, (name, parameter) in enumerate(problem.named_parameters):
        if name in of and "ns_steps" in of[name].group and parameter.ndim == 2:
            rows, columns = parameter.shape
            rule = of[name].group.get("adjust_lr_fn")
            wide = math.sqrt(max(1.0, rows / columns))
            scale = 0.2 * math.sqrt(max(rows, columns)) if rule == "match_rms_adamw" else wide
            found.append((index, number_of(of[name].group["lr"]), scale))
    return found
