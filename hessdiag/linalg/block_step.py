"""A step of block Lanczos as a GPU likes it: matrix products throughout, and one copy to the host."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.lanczos import Passes, norms_of


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


def block_step(images: Tensor, basis: Tensor, near: int) -> BlockStep:
    """Orthogonalize a block against the basis in place, as `orthogonalize` does, and make its rows orthonormal.

    By two Cholesky factors of Gram matrices (Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015), the rows scaled to
    unit length first: as good as Householder's reflections where the rows are not all but dependent.

    Args:
        images: Rows, (b, n).
        basis: Orthonormal rows, (m, n).
        near: How many of its last rows hold all that is there to subtract, but for errors.
    """
    sizes = norms_of(images)
    passes = Passes(images, basis, near, own=True)
    step, overlooked = _orthonormal(passes, sizes)
    if overlooked:
        passes.again()
        step, _ = _orthonormal(passes, sizes)
    return step


def _orthonormal(passes: Passes, sizes: Tensor) -> tuple[BlockStep, bool]:
    """The step after these passes, and whether another one is due."""
    remainder, coefficients = passes.remainder, passes.coefficients
    (b, m), norms = coefficients.shape, norms_of(remainder)
    rows, coupling = remainder / norms.to(remainder.dtype)[:, None], torch.diag(norms)
    identity = torch.eye(b, dtype=rows.dtype, device=rows.device)
    for _ in range(2):
        lower, _ = torch.linalg.cholesky_ex(rows @ rows.T)
        rows = torch.linalg.solve_triangular(lower, identity, upper=False) @ rows
        coupling = coupling @ lower.to(norms.dtype)
    numbers = [coefficients, coupling, sizes, passes.overlooked]
    told: Tensor = torch.cat([part.flatten().to(norms.dtype) for part in numbers]).double().cpu()
    known, factor, largest, overlooked = torch.split(told, [b * m, b * b, b, b])
    return BlockStep(rows, known.view(b, m), factor.view(b, b), float(largest.max())), bool(overlooked.any())
