"""The extreme eigenvalues of a Hessian and of its block diagonal, and the angle between the directions on top."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.eigenpairs import Eigenpairs, dense_eigenpairs
from hessdiag.linalg.eigensolver import extreme_eigenpairs

DENSE_UP_TO = 2_000  # rows of a matrix at hand whose eigenvectors LAPACK computes
PAIRS_ON_TOP = 4  # of a larger one; more copies of its largest eigenvalue are LAPACK's
TO_ROUNDING = 1e-8  # relative residual: eigenvalues are off by its square
ALIKE = 1e-5  # relative distance of eigenvalues that count as one: pairs to a residual of 1e-3 are off by its square


@dataclass(frozen=True)
class Ends:
    """Both ends of one matrix's spectrum.

    Attributes:
        lowest: Smallest eigenvalue.
        highest: Largest.
        converged: Whether they are.
        top: Orthonormal eigenvectors of the largest and of those alike, as columns, in float64 on the CPU.
        complete: Whether these are all of them; where as many are alike as were looked for, there may be more.
        rounding: Magnitude below which an eigenvalue is zero to rounding.
    """

    lowest: float
    highest: float
    converged: tuple[bool, bool]
    top: Tensor
    complete: bool
    rounding: float = 0.0

    @classmethod
    def of(cls, pairs: Eigenpairs) -> "Ends":
        """From eigenpairs at both ends."""
        values = pairs.values
        high = values[len(values) - pairs.highest :]
        alike = int((high >= high[-1] - ALIKE * high[-1].abs()).sum())
        vectors = pairs.vectors[:, len(values) - alike :].double().cpu()
        converged = bool(pairs.converged[0]), bool(pairs.converged[-1])
        complete = alike < pairs.highest or alike == len(pairs.vectors)
        return cls(float(values[0]), float(values[-1]), converged, vectors, complete, pairs.rounding)


def of_matrix(matrix: Tensor, precision: float) -> Ends:
    """Of a matrix that is at hand; by Lanczos to full accuracy, where LAPACK's eigenvectors would take a minute."""
    if len(matrix) > DENSE_UP_TO:
        found = Ends.of(
            extreme_eigenpairs(matrix, lowest=1, highest=PAIRS_ON_TOP, tol=TO_ROUNDING, precision=precision)
        )
        if found.complete and all(found.converged):
            return found
    return Ends.of(dense_eigenpairs(matrix, lowest=1, highest=len(matrix), precision=precision))


def cosine(whole: Ends, blocks: Sequence[tuple[Tensor, Ends]]) -> float | None:
    """The cosine between the top eigenvectors of a matrix and of its block diagonal; of spaces, of the smallest angle.

    Args:
        whole: Of the matrix.
        blocks: Of blocks that may hold the largest eigenvalue, with their rows.

    Returns:
        `None` where one has no positive eigenvalue, or more copies of it than are known.
    """
    most = max((ends.highest for _, ends in blocks), default=0.0)
    near = [(rows, ends) for rows, ends in blocks if most - ends.highest <= ALIKE * abs(most)]
    if not min(whole.highest, most) > 0 or not all(ends.complete for ends in (whole, *(ends for _, ends in near))):
        return None
    parts = [ends.top.T @ whole.top[rows] for rows, ends in near]  # columns of different blocks are orthogonal
    return min(float(torch.linalg.matrix_norm(torch.cat(parts), 2)), 1.0)
