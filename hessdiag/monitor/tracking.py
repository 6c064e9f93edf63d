"""The largest eigenvalue of an operator that changes slowly, from few products: Lanczos that goes on from last time.

The old eigenvector alone is no start: top eigenvectors swap, and its Krylov space may hold next to nothing of the new
one. Beside it go noise, and the gradient, in which a new one shows first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.krylov import KrylovSpace
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import safe_norm

ENOUGH = 0.04  # residual over value, at most, of a value that counts as converged: of 108 such looks two were 2 % off
WANTED = 0.02  # the same, which is worth a product more as long as there are few
LEAST = 4  # products, with fewer of which a wrong eigenvector can pass
WARM = 5  # products, at most, of a look that goes on from a converged one,
COLD = 30  # and of one that does not, unless told otherwise
WINDOW = 8  # vectors of length N that a search holds
NOISE, SLOPE = 0.1, 0.3  # of what goes beside the old top vector
KEPT = 3  # top Ritz vectors that a restart keeps
ROUNDING = 32.0  # units of rounding of |A| below which a residual is noise


@dataclass(frozen=True)
class Found:
    """What a search found, and where the next one starts.

    Attributes:
        value: The largest Ritz value: at most the largest eigenvalue.
        residual: |A v - value v|: within it there is an eigenvalue.
        converged: Whether that is small beside the value.
        rounding: What rounding can do to it.
        products: Spent.
        top: Its Ritz vector v, of unit length, (N,).
    """

    value: float
    residual: float
    converged: bool
    rounding: float
    products: int
    top: Tensor


def track(
    operator: SymmetricOperator, before: Found | None, slope: Tensor, seed: int, precision: float, cold: int = COLD
) -> Found:
    """The largest eigenvalue.

    Args:
        operator: Symmetric, (N, N).
        before: What was found of it when it was another; `None` for a random start.
        slope: The gradient in its coordinates, (N,).
        seed: Of the noise.
        precision: Relative error of products.
        cold: Most products of a search that does not go on from a converged one; of others it is 5.

    Returns:
        The largest Ritz value, converged or not.

    >>> A = torch.diag(torch.tensor([1.0, 2.0, 9.0]))
    >>> first = track(A, None, torch.ones(3), 0, 1e-7)
    >>> round(first.value, 4), first.converged
    (9.0, True)
    >>> track(A + 0.01, first, torch.ones(3), 1, 1e-7).products
    3
    """
    n = operator.shape[0]
    if before is not None and len(before.top) != n:  # weights were frozen, or thawed
        before = None
    most = min(WARM if before is not None and before.converged else cold, n)
    window = min(WINDOW, n)
    start = None if before is None else _start(before, slope, seed)
    space = KrylovSpace(operator, window, 1, 1, seed, precision, images=False, start=start)
    while True:
        room = space.grow()
        values, vectors, residuals = space.ritz()
        value, residual = float(values[-1]), float(residuals[-1])
        rounding = ROUNDING * precision * space.norm
        few = space.products < WARM
        good = residual <= max((WANTED if few else ENOUGH) * abs(value), rounding)
        if (space.products >= min(LEAST, n) and good) or space.products >= most or space.size >= n:
            break
        if not room:
            space.restart(values[-KEPT:], vectors[:, -KEPT:])
    return Found(
        value=value,
        residual=residual,
        converged=residual <= max(ENOUGH * abs(value), rounding),
        rounding=rounding,
        products=space.products,
        top=space.combine(vectors[:, -1:])[0],
    )


def _start(before: Found, slope: Tensor, seed: int) -> Tensor:
    """One row: the old vector, the gradient and noise."""
    top = before.top
    noise = torch.randn(len(top), generator=torch.Generator().manual_seed(seed), device="cpu").to(top)
    size = safe_norm(slope)
    beside = SLOPE / size * slope.to(top) if size else torch.zeros_like(top)
    return (top + beside + NOISE / safe_norm(noise) * noise)[None]
