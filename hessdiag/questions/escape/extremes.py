"""The ends of the Hessian's spectrum where a race starts, as far as they can be had at a bounded price."""

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.linalg.eigenpairs import Eigenpairs
from hessdiag.linalg.eigensolver import extreme_eigenpairs, smallest_basis

TOLERANCE, ACCEPTED = 1e-2, 0.1  # residuals of eigenvalues, relative to them: asked for, and good enough
PRODUCTS = 400  # with the Hessian, at most
BASIS, HELD = 100, 2**28  # vectors of a Krylov basis at most, and numbers in all of them: 2 GiB in float64


def extremes(operator: HessianOperator, *, lowest: int, highest: int, seed: int) -> Eigenpairs | None:
    """So many of the smallest and of the largest eigenpairs; their residuals are yet to be looked at.

    Args:
        operator: The Hessian.
        lowest: How many of the smallest.
        highest: How many of the largest.
        seed: Of the eigensolver's start.

    Returns:
        The pairs; `None` where there is no room for a basis, or products cannot be had.
    """
    room = HELD // max(operator.shape[0], 1)
    if room < smallest_basis(lowest, highest):
        return None
    try:
        found = extreme_eigenpairs(
            operator,
            lowest=lowest,
            highest=highest,
            tol=TOLERANCE,
            max_basis=min(room, BASIS),
            max_products=PRODUCTS,
            seed=seed,
            images=False,
        )
    except (HessdiagError, RuntimeError):
        return None
    return None if found.interrupted else found
