"""A step of block Lanczos as a GPU likes it: matrix products throughout, and one copy to the host."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.spread import Spread, is_alone
from hessdiag.linalg.tridiagonal import Passes, gram_of, norms_of

WELL = 0.5  # of its length that a row keeps beside the rows before it: then one Cholesky factor is as good as two


@dataclass(frozen=True)
class BlockStep:
    """What is left of the images of a block, made orthonormal.

    Attributes:
        rows: Orthonormal rows, remainder = coupling rows; of no use where the remainder is dependent, (b, n).
        coefficients: What was subtracted, float64 on the CPU, (b, m).
        coupling: Lower triangular, float64 on the CPU, (b, b); NaN where the remainder is dependent.
        largest: The largest norm of an image.
    """

    rows: Tensor
    coefficients: Tensor
    coupling: Tensor
    largest: float


def block_step(images: Tensor, basis: Tensor, near: int, spread: Spread | None = None) -> BlockStep:
    """Orthogonalize a block against the basis in place, as `orthogonalize` does, and make its rows orthonormal.

    By the Cholesky factor of their Gram matrix in float64, and a second one where rows are nearly dependent (Yamamoto,
    Nakatsukasa, Yanagisawa and Fukaya 2015): then as good as Householder's reflections.

    Args:
        images: Rows, (b, n).
        basis: Orthonormal rows, (m, n).
        near: How many of its last rows hold all that is there to subtract, but for errors.
        spread: Over processes: then rows are pieces. Two sums, and one more for a third pass or a second factor.
    """
    sizes = norms_of(images) if is_alone(spread) else None
    passes = Passes(images, basis, near, own=True, spread=spread)
    sizes = passes.before if sizes is None else sizes
    assert sizes is not None
    b, m = len(images), len(basis)
    for third in (False, True):
        numbers = [passes.gram, passes.second, passes.first, sizes]
        told: Tensor = torch.cat([part.flatten().to(sizes.dtype) for part in numbers]).double().cpu()
        gram, second, first, largest = torch.split(told, [b * b, b * m, b * passes.first.shape[-1], b])
        gram, coefficients = gram.view(b, b), second.view(b, m).clone()
        if third or not bool((coefficients.norm(dim=1) > gram.diagonal().sqrt()).any()):
            break
        passes.again()
    first = first.view(b, -1)
    coefficients[:, m - first.shape[1] :] += first
    rows, coupling = _divided(passes.remainder, gram)
    if bool((coupling.diagonal() < WELL * coupling.norm(dim=1)).any()):
        rows, factor = _divided(rows, gram_of(rows, spread).cpu())
        coupling = coupling @ factor
    return BlockStep(rows, coefficients, coupling, float(largest.max()))


def _divided(rows: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over the Cholesky factor of their Gram matrix, and the factor; it is NaN where there is none."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        return rows, torch.full_like(gram, torch.nan)
    inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower), dtype=lower.dtype), upper=False)
    return inverse.to(rows) @ rows, lower
