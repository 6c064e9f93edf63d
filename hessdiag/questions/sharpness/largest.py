"""Largest eigenvalues of a Hessian: as it is, and between diagonal matrices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import Spread
from hessdiag.linalg.tridiagonal import inner, safe_norm
from hessdiag.questions.common.runs.forecast import foreseen
from hessdiag.questions.common.runs.outlay import Basis

MOST = 300  # products after which a search gives up


@dataclass(frozen=True)
class Largest:
    """The largest eigenvalue.

    Attributes:
        value: The Ritz value.
        residual: |A v - value v|: an eigenvalue lies within it. 0 at the level of rounding.
        converged: Whether the residual is within the tolerance; if not, the value is a lower bound.
        vector: v, (n,).
        products: Spent.
        interrupted: Whether the keyboard ended the search.
    """

    value: float
    residual: float
    converged: bool
    vector: Tensor
    products: int
    interrupted: bool


def largest(operator: SymmetricOperator, space: Basis, tol: float, seed: int, precision: float) -> Largest:
    """By Lanczos from a random start.

    Args:
        operator: Symmetric, (n, n).
        space: How many vectors may be held.
        tol: Residual to reach, relative to the eigenvalue.
        seed: Of the start.
        precision: Relative error of products.
    """
    pairs = extreme_eigenpairs(
        operator,
        lowest=0,
        highest=1,
        tol=tol,
        max_basis=space.size,
        max_products=MOST,
        block=1,
        seed=seed,
        precision=precision,
        images=space.images,
        foresee=foreseen,
    )
    residual = float(pairs.residuals[-1])
    return Largest(
        value=float(pairs.values[-1]),
        residual=residual if residual > pairs.rounding else 0.0,
        converged=bool(pairs.converged[-1]),
        vector=pairs.vectors[:, -1],
        products=pairs.products,
        interrupted=pairs.interrupted,
    )


def overlap(vector: Tensor, step: Tensor, scale: Tensor | None, spread: Spread | None = None) -> float | None:
    """|cos| of the angle between an eigenvector and a step, both in the metric; `None` for no step.

    Args:
        vector: Of unit length, (n,).
        step: As it changes the weights, (n,).
        scale: P^(-1/2), zero where nothing moves; `None` for the identity.
        spread: Of these vectors over processes, each with its pieces. Default: not at all.
    """
    inside = step.double()
    if scale is not None:
        inside = torch.where(scale > 0, inside / scale, 0.0)
    size = safe_norm(inside, spread)
    return abs(inner(vector, inside, spread)) / size if size else None
