"""Where the eigenvalues of a symmetric matrix can lie: inclusion intervals from its entries and rows.

Varga, Gershgorin and His Circles (2004). Every function returns what holds for any matrix of those statistics; the
sketch alone is an estimate, with its error.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hessdiag.linalg import cauchy
from hessdiag.linalg.component import Component
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import LONG
from hessdiag.machine import capacity
from hessdiag.machine.arithmetic import ieee

Floats = NDArray[np.float64]
Interval = tuple[float, float]

LEAST_PROBES = 3  # of a Cauchy sketch: with two, its variance is infinite
_TOLERANCE = 1e-8  # relative residual of the Perron vector
_PRODUCTS = 400  # at most, for it
_SCALINGS = 200  # power iterations at most, after that
_SETTLED = 1e-9  # relative distance of the Perron bound from its optimum at which they end
_LEAST = 1e-12  # entry of the Perron vector relative to its largest that is not rounding
_TOGETHER = 16  # Cauchy vectors held at a time
_PANEL = 512  # rows of a dense matrix looked at together


@dataclass(frozen=True)
class RowSums:
    """Absolute row sums sum_j |A_ij|, (n,), all with the same relative standard error, and the products spent."""

    sums: Floats
    relative_stderr: float
    products: int


def discs(diagonal: ArrayLike, radii: ArrayLike) -> Interval:
    """Gershgorin: the hull of all [a_i - R_i, a_i + R_i].

    Args:
        diagonal: a_i, shape (n,).
        radii: R_i = sum over j != i of |A_ij|, shape (n,).

    >>> discs([4, -2, 1, 7], [1.5, 1.3, 0.5, 0.7])
    (-3.3, 7.7)
    """
    a, R = _rows(diagonal, radii)
    return float((a - R).min()), float((a + R).max())


def components(diagonal: ArrayLike, radii: ArrayLike) -> tuple[Component, ...]:
    """Connected components of the union of discs, ascending: one made of k discs holds exactly k eigenvalues.

    >>> [component.count for component in components([0, 1, 5], [0.5, 0.5, 1])]
    [2, 1]
    """
    a, R = _rows(diagonal, radii)
    order = np.argsort(a - R, kind="stable")
    low, high = (a - R)[order], np.maximum.accumulate((a + R)[order])
    starts = np.flatnonzero(np.r_[True, low[1:] > high[:-1]])
    stops = np.r_[starts[1:], len(a)]
    return tuple(
        Component((float(low[start]), float(high[stop - 1])), int(stop - start))
        for start, stop in zip(starts, stops, strict=True)
    )


def brauer(diagonal: ArrayLike, radii: ArrayLike) -> Interval:
    """Brauer's ovals of Cassini: every eigenvalue has |x - a_i| |x - a_j| <= R_i R_j for some i < j.

    Arguments as for `discs`. The interval lies within Gershgorin's. All pairs are searched, in O(n) a sweep.

    >>> [round(end, 5) for end in brauer([4, -2, 1, 7], [1.5, 1.3, 0.5, 0.7])]
    [-2.30908, 7.31659]
    """
    a, R = _rows(diagonal, radii)
    return -_oval_end(-a, R), _oval_end(a, R)


def _oval_end(a: Floats, R: Floats) -> float:
    """The largest right end of all ovals.

    A pair's oval reaches beyond x where R_i / (x - a_i) times R_j / (x - a_j) exceeds 1, so the pair that reaches
    beyond x, if any does, is that of the two largest quotients. Its end is the next x; the last one is the answer.
    """
    if len(a) == 1:
        return float(a[0])
    x, reached = -math.inf, float(a.max())
    rounding = np.finfo(np.float64).eps * (np.abs(a).max() + R.max()) + np.finfo(np.float64).tiny
    while reached > x:
        x = reached
        quotients = R / np.maximum(x - a, rounding)
        i, j = np.argpartition(quotients, -2)[-2:]
        reached = float((a[i] + a[j]) / 2 + math.hypot((a[i] - a[j]) / 2, math.sqrt(R[i] * R[j])))
    return x


@ieee()
def perron(matrix: Tensor) -> Interval:
    """Gershgorin's interval after the best diagonal scaling D^-1 A D at each end.

    With M = diag(a) + |A off the diagonal|, max_i (M d)_i / d_i bounds the largest eigenvalue for any d > 0, and the
    smallest such bound is M's own largest eigenvalue (Collatz and Wielandt). Its eigenvector comes from Lanczos, whose
    small entries power iteration then mends.

    Args:
        matrix: Dense and symmetric, shape (n, n).

    Returns:
        An interval that is valid wherever the iteration ends; within Brauer's where it converges.
    """
    M = matrix.abs()
    a = matrix.diagonal()
    M.diagonal().copy_(-a)
    low = -_scaled_end(M)
    M.diagonal().copy_(a)
    return low, _scaled_end(M)


def _scaled_end(M: Tensor) -> float:
    """The smallest max_i (M d)_i / d_i over the iterates d; M is nonnegative off the diagonal."""
    pairs = extreme_eigenpairs(M, lowest=0, highest=1, tol=_TOLERANCE, max_products=_PRODUCTS)
    d = pairs.vectors[:, -1].abs().double()
    d = d.clamp(min=_LEAST * float(d.max()))
    tiny = torch.finfo(M.dtype).tiny ** 0.7  # parts of M that are apart from the rest decay, and must not underflow
    best = M.sum(1, dtype=torch.float64).max()  # d = 1: Gershgorin's own
    bound = float(best)
    shift = float((-M.diagonal()).max().clamp(min=0)) + bound / 4 if bound > 0 else 0.0
    apart = capacity.of(M.device).apart
    for turn in range(_SCALINGS if shift else 1):
        d = (d / d.max()).clamp(min=tiny)
        Md = (M @ d.to(M.dtype)).double()
        ratios = Md / d
        most = ratios.max()
        best = torch.where(most < best, most, best)
        if turn % apart == apart - 1 and bool(most - ratios.min() <= _SETTLED * ratios.abs().max()):
            break
        d = Md + shift * d  # M + shift is nonnegative, and its largest eigenvalue the dominant one
    return float(best)


def wolkowicz_styan(n: int, trace: float, frobenius: float) -> tuple[Interval, Interval]:
    """Where the smallest and where the largest eigenvalue lie, given n, tr A and |A|_F (Wolkowicz and Styan 1980).

    >>> wolkowicz_styan(2, 0.0, 2**0.5)[1]
    (1.0, 1.0)
    """
    mean = trace / n
    spread = math.sqrt(max(frobenius**2 / n - mean**2, 0.0))
    far, near = spread * math.sqrt(n - 1), spread / math.sqrt(n - 1) if n > 1 else 0.0
    return (mean - far, mean - near), (mean + near, mean + far)


def sketch_correction(count: int) -> float:
    """What makes the geometric mean of `count` Cauchy magnitudes unbiased: cos(pi / 2k)^k.

    >>> round(sketch_correction(25), 6)
    0.951819
    """
    return math.cos(math.pi / (2 * count)) ** count


def sketch_relative_stderr(count: int) -> float:
    """Relative standard deviation of that estimate, about pi / (2 sqrt k).

    >>> round(sketch_relative_stderr(25), 6)
    0.322854
    """
    return math.sqrt(sketch_correction(count) ** 2 / math.cos(math.pi / count) ** count - 1)


@ieee()
def sketch_row_sums(operator: SymmetricOperator, count: int, seed: int | None = None) -> RowSums:
    """All absolute row sums at once: A times a Cauchy vector is Cauchy, with the row sums for scales (Indyk 2006).

    The estimate is the geometric mean of magnitudes over probes, made unbiased (Li, Hastie and Church 2007). Rows share
    their probes, so that errors of different rows are not independent.

    Args:
        operator: Symmetric, (n, n).
        count: Probes, at least 3; each costs one product.
        seed: `None` for fresh randomness.

    Raises:
        ValueError: for fewer probes.
    """
    if count < LEAST_PROBES:
        raise ValueError(f"a Cauchy sketch needs at least {LEAST_PROBES} probes")
    together = max(1, min(_TOGETHER, LONG // operator.shape[0]))  # vectors can be long
    logs = torch.zeros(operator.shape[0], dtype=torch.float64, device=operator.device)
    for images in cauchy.images(operator, count, seed, together=together):
        logs += images.abs().double().log().sum(1)  # log 0 = -inf: a zero row stays zero
    sums = sketch_correction(count) * (logs / count).exp().cpu().numpy()
    return RowSums(sums, sketch_relative_stderr(count), count)


def radii(matrix: Tensor) -> tuple[Floats, Floats]:
    """Diagonal and off-diagonal absolute row sums of a dense matrix, in float64."""
    diagonal = matrix.diagonal().double()
    sums = torch.cat([part.abs().sum(1, dtype=torch.float64) for part in torch.split(matrix, _PANEL)])
    return diagonal.cpu().numpy(), (sums - diagonal.abs()).clamp(min=0).cpu().numpy()


def _rows(diagonal: ArrayLike, radii: ArrayLike) -> tuple[Floats, Floats]:
    return np.asarray(diagonal, dtype=np.float64), np.asarray(radii, dtype=np.float64)
