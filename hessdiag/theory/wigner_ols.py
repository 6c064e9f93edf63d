"""Diagonal share `sum_i |M_ii| / sum_ij |M_ij|` of random matrices: Wigner, OLS, and the PSD floor.

The two random baselines, and taking the share of the expected absolute matrix, follow Adolphs, Kohler and
Lucchi, "Ellipsoidal Trust Region Methods and the Marginal Value of Hessian Information for Neural Network
Training" (2019). The finite-size formulas are derived in docs/concepts/theory.md.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, gammaln

from hessdiag.errors import SpecError

BLOCK_ENTRIES = 2**21  # entries of a d x d matrix that are held at once: 16 MiB of float64


def _check_size(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SpecError(f"{name} is {size}, but a share needs at least 1.", f"{name}=1 or more")


def wigner_share(d: int, ratio: float = 1.0) -> float:
    """Share of a d x d Wigner matrix: `E sum|M_ii| / E sum|M_ij|` for independent entries of mean zero.

    Args:
        d: Size of the matrix.
        ratio: `E|M_ii| / E|M_ij|`; for Gaussian entries, the ratio of the standard deviations
            (1 for equal variances, sqrt(2) for the Gaussian orthogonal ensemble).

    Returns:
        `ratio / (ratio + d - 1)`, which is 1/d for equal variances.

    Raises:
        SpecError: If `d < 1` or `ratio < 0`.

    Example:
        >>> wigner_share(10)
        0.1
        >>> round(wigner_share(10, ratio=2**0.5), 6)
        0.135796
    """
    _check_size(d=d)
    if ratio < 0:
        raise SpecError(f"The ratio of diagonal to off-diagonal entries is {ratio}, but must not be negative.")
    return 1.0 if d == 1 else ratio / (ratio + d - 1)


def wigner_share_mean(d: int) -> tuple[float, float]:
    """Mean and standard deviation of the share itself, for Gaussian entries of equal variance.

    Second-order delta method on the two independent sums of absolute values; the standard deviation is about
    one percent too small at d = 10, and both are better for larger d.

    Args:
        d: Size of the matrix.

    Returns:
        (mean, standard deviation); the mean is `1/d + (pi/2 - 1)(d - 1)/d^4`.

    Raises:
        SpecError: If `d < 1`.

    Example:
        >>> [round(value, 6) for value in wigner_share_mean(10)]
        [0.100514, 0.023772]
    """
    _check_size(d=d)
    mean = 1 / d + (math.pi / 2 - 1) * (d - 1) / d**4
    diagonal, off_diagonal = d, d * (d - 1)  # means of the two sums, in units of E|entry|
    excess = math.pi / 2 - 1  # Var|entry| / (E|entry|)^2
    variance = excess * (off_diagonal**2 * d + diagonal**2 * 2 * off_diagonal) / (diagonal + off_diagonal) ** 4
    return mean, math.sqrt(variance)


def gaussian_product_mean(n: int) -> float:
    """`m_n = E|sum_k x_k y_k|` over n pairs of independent standard normals.

    It is `2 Gamma((n+1)/2) / (sqrt(pi) Gamma(n/2))`: given x, the sum is normal with variance `||x||^2`, so
    m_n is `sqrt(2/pi)` times the mean of a chi variable.

    Example:
        >>> [round(gaussian_product_mean(n), 6) for n in (1, 2, 8)]
        [0.63662, 1.0, 2.1875]
    """
    _check_size(n=n)
    return 2 / math.sqrt(math.pi) * math.exp(gammaln((n + 1) / 2) - gammaln(n / 2))


def ols_share_gaussian(n: int, d: int) -> float:
    """Share of an OLS Hessian `X^T X` for X (n, d) with independent standard normal entries, exact at any n.

    The scale of X and of the loss drop out. This is `E sum|H_ii| / E sum|H_ij| = n / (n + (d - 1) m_n)`.

    Args:
        n: Samples (rows of X).
        d: Features (columns of X).

    Raises:
        SpecError: If `n < 1` or `d < 1`.

    Example:
        >>> round(ols_share_gaussian(32, 100), 7)
        0.0673172
    """
    _check_size(n=n, d=d)
    return n / (n + (d - 1) * gaussian_product_mean(n))


def ols_share_clt(n: int, d: int) -> float:
    """Share of an OLS Hessian `X^T X` in the central limit: any centred independent entries, for large n.

    The off-diagonal entries are taken as normal, so the share is `sqrt(n) / (sqrt(n) + (d - 1) sqrt(2/pi))`.
    It lies below the exact Gaussian value by a relative `(1 - share)/(4n)`.

    Args:
        n: Samples (rows of X).
        d: Features (columns of X).

    Raises:
        SpecError: If `n < 1` or `d < 1`.

    Example:
        >>> round(ols_share_clt(32, 100), 7)
        0.0668284
    """
    _check_size(n=n, d=d)
    return 1 / (1 + (d - 1) * math.sqrt(2 / (math.pi * n)))


def folded_normal_mean(mean: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """`E|Z|` for Z ~ N(mean, variance), elementwise; `|mean|` where the variance is 0.

    Example:
        >>> round(float(folded_normal_mean(1.0, 4.0)), 5)
        1.79119
    """
    mean, variance = np.broadcast_arrays(np.asarray(mean, float), np.asarray(variance, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(variance > 0, mean / np.sqrt(2 * variance), np.copysign(np.inf, mean))
    return np.asarray(np.sqrt(2 * variance / np.pi) * np.exp(-(score**2)) + mean * erf(score))


def ols_share_columns(n: int, mean: ArrayLike, second_moment: ArrayLike) -> float:
    """Share of an OLS Hessian `X^T X` whose columns are independent but neither centred nor of one scale.

    Central limit in n: `H_ij ~ N(n mu_i mu_j, n (M_i M_j - mu_i^2 mu_j^2))` and `E H_ii = n M_i`. As n grows
    the share does not tend to 1 unless the columns are centred. Takes O(d^2) time and O(d) memory.

    Args:
        n: Samples (rows of X).
        mean: (d,) means `mu` of the columns.
        second_moment: (d,) second moments `M = variance + mu^2` of the columns.

    Returns:
        The share; NaN if every second moment is 0.

    Raises:
        SpecError: If the shapes differ, or a second moment lies below the squared mean.

    Example:
        >>> round(ols_share_columns(64, mean=[0.0] * 30, second_moment=[2.0] * 30), 6)
        0.256915
    """
    _check_size(n=n)
    mu, moment = np.asarray(mean, float), np.asarray(second_moment, float)
    if mu.ndim != 1 or mu.shape != moment.shape:
        raise SpecError(f"mean has shape {mu.shape} and second_moment {moment.shape}; both must be (d,).")
    if np.any(moment < mu**2 * (1 - 1e-12)):
        raise SpecError("A column's second moment is below its squared mean.", "second_moment = (X**2).mean(axis=0)")
    diagonal = n * moment.sum()
    off_diagonal = 0.0
    for block in _blocks(mu.size):
        mean_product = np.outer(mu[block], mu)
        variance = np.clip(np.outer(moment[block], moment) - mean_product**2, 0, None)
        expected = folded_normal_mean(n * mean_product, n * variance)
        expected[np.arange(expected.shape[0]), np.arange(block.start, block.stop)] = 0
        off_diagonal += expected.sum()
    return _share(diagonal, diagonal + off_diagonal)


def data_share(X: ArrayLike) -> float:
    """Share of `X^T X` for the data at hand: the OLS baseline with real inputs, correlations and all.

    Non-negative data (pixels) take O(nd): the sum of all entries is `sum_k (sum_i x_ki)^2`. Signed data go by
    blocks of columns: O(n d^2) time, and never more than a few blocks of the d x d matrix in memory.

    Args:
        X: (n, d) real data, one sample per row.

    Returns:
        The share; NaN if X is all zero, or not finite.

    Raises:
        SpecError: If X is not a matrix.

    Example:
        >>> data_share([[1.0, 1.0], [1.0, -1.0]])
        1.0
        >>> data_share([[1.0, 1.0]])
        0.5
    """
    data = np.asarray(X, dtype=np.float64)
    if data.ndim != 2:
        raise SpecError(
            f"The data have shape {data.shape}; the OLS share needs a matrix (samples, features).",
            "X.reshape(n, -1)",
        )
    largest = np.abs(data).max(initial=0.0)
    if not 0 < largest < np.inf:
        return math.nan
    data = data / largest  # the share is scale-free; squares of the raw data may overflow
    diagonal = float((data**2).sum())
    if (data >= 0).all():
        return _share(diagonal, float((data.sum(axis=1) ** 2).sum()))
    total = 0.0
    for block in _blocks(data.shape[1]):
        here, after = data[:, block], data[:, block.stop :]
        total += np.abs(here.T @ here).sum() + 2 * np.abs(here.T @ after).sum()
    return _share(diagonal, total)


def psd_floor(d: int) -> float:
    """The least share of any positive semi-definite d x d matrix, 1/d: only an indefinite one can lie below.

    Example:
        >>> psd_floor(4)
        0.25
    """
    _check_size(d=d)
    return 1 / d


def psd_floor_diagonal(diagonal: ArrayLike) -> float:
    """The least share of a positive semi-definite matrix with the given diagonal.

    It is `sum_i m_i / (sum_i sqrt(m_i))^2 >= 1/d`, from `|M_ij| <= sqrt(M_ii M_jj)`; reached by the rank-one
    matrix with that diagonal.

    Args:
        diagonal: (d,) diagonal, not negative.

    Returns:
        The floor; NaN if the diagonal is all zero.

    Raises:
        SpecError: If an entry is negative: the matrix is then not positive semi-definite.

    Example:
        >>> psd_floor_diagonal([1.0, 1.0, 1.0, 1.0])
        0.25
    """
    diagonal = np.asarray(diagonal, dtype=np.float64)
    if np.any(diagonal < 0):
        raise SpecError(
            "The diagonal has a negative entry, so the matrix is not positive semi-definite: no floor holds."
        )
    return _share(float(diagonal.sum()), float(np.sqrt(diagonal).sum() ** 2))


def _share(diagonal: float, total: float) -> float:
    return float(diagonal / total) if total > 0 else math.nan


def _blocks(columns: int) -> Iterator[slice]:
    size = max(1, BLOCK_ENTRIES // max(1, columns))
    return (slice(start, min(start + size, columns)) for start in range(0, columns, size))
