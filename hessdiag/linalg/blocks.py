"""Where the eigenvalues of a symmetric matrix can lie, from its blocks; and where some must lie, from inside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hessdiag.linalg.inclusion import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """Of a matrix cut into L x L blocks.

    Attributes:
        lowest: Smallest eigenvalue of each diagonal block, (L,).
        highest: Largest, (L,).
        norms: Spectral norm of each off-diagonal block, (L, L), with a zero diagonal.
        inner: The matrix has an eigenvalue at or below the first of the two, and one at or above the second.
    """

    lowest: Floats
    highest: Floats
    norms: Floats
    inner: Interval


def measure(matrix: Tensor, slices: Sequence[slice]) -> Blocks:
    """Extremes and spectral norms of the blocks of a dense symmetric matrix, in float64.

    Args:
        matrix: (n, n).
        slices: Consecutive ranges that cover it.
    """
    count = len(slices)
    lowest, highest, norms = np.zeros(count), np.zeros(count), np.zeros((count, count))
    low, high = math.inf, -math.inf
    for i, rows in enumerate(slices):
        values = torch.linalg.eigvalsh(matrix[rows, rows].double())
        lowest[i], highest[i] = float(values[0]), float(values[-1])
        low, high = min(low, lowest[i]), max(high, highest[i])
        for j in range(i):
            columns = slices[j]
            u, v, norm = _top_triple(matrix[rows, columns].double())
            norms[i, j] = norms[j, i] = norm
            alpha, beta = (float(w @ (matrix[s, s].double() @ w)) for w, s in ((u, rows), (v, columns)))
            below, above = inner(alpha, beta, norm)
            low, high = min(low, below), max(high, above)
    return Blocks(lowest, highest, norms, (low, high))


def _top_triple(block: Tensor) -> tuple[Tensor, Tensor, float]:
    """Unit vectors u, v and the largest singular value u'Bv, through the smaller of the two Gram matrices."""
    tall = block.shape[0] > block.shape[1]
    wide = block.T if tall else block
    left = torch.linalg.eigh(wide @ wide.T)[1][:, -1]
    right = wide.T @ left
    norm = float(right.norm())
    right = right / norm if norm else torch.eye(len(right), dtype=block.dtype, device=block.device)[0]
    return (right, left, norm) if tall else (left, right, norm)


def norm_matrix(lowest: ArrayLike, highest: ArrayLike, norms: ArrayLike) -> Interval:
    """Bounds from blocks: the eigenvalues of two L x L matrices of norms.

    For x with block norms t, x'Ax <= sum_l highest_l t_l^2 + sum_(l != m) |A_lm| t_l t_m; likewise from below.

    Args:
        lowest: A lower bound of every diagonal block's eigenvalues, shape (L,).
        highest: An upper bound, likewise.
        norms: Spectral norms of the blocks, or anything above them (Frobenius), shape (L, L); the diagonal is not used.

    >>> norm_matrix([0, 0], [1, 1], [[0, 2], [2, 0]])
    (-2.0, 3.0)
    """
    off = np.array(norms, dtype=np.float64)
    np.fill_diagonal(off, 0.0)
    low = np.linalg.eigvalsh(np.diag(np.asarray(lowest, dtype=np.float64)) - off)[0]
    high = np.linalg.eigvalsh(np.diag(np.asarray(highest, dtype=np.float64)) + off)[-1]
    return float(low), float(high)


def feingold_varga(lowest: ArrayLike, highest: ArrayLike, norms: ArrayLike) -> Interval:
    """Gershgorin by blocks (Feingold and Varga 1962): eigenvalues lie within a row of norms of a block's own.

    Arguments as for `norm_matrix`, which is never wider.
    """
    off = np.array(norms, dtype=np.float64)
    np.fill_diagonal(off, 0.0)
    reach = off.sum(1)
    low, high = np.asarray(lowest, dtype=np.float64), np.asarray(highest, dtype=np.float64)
    return float((low - reach).min()), float((high + reach).max())


def inner(alpha: float, beta: float, coupling: float) -> Interval:
    """A certificate from inside: A has an eigenvalue at or below the first, and one at or above the second.

    Args:
        alpha: u'Au of a unit vector u.
        beta: v'Av of a unit vector v orthogonal to u.
        coupling: u'Av. For a singular triple of a block, its singular value.
    """
    middle, reach = (alpha + beta) / 2, math.hypot((alpha - beta) / 2, coupling)
    return middle - reach, middle + reach
