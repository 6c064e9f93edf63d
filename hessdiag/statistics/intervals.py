"""95 % intervals of estimates; for means over random vectors from the spectrum itself, which knows their variance.

For v uniform on the unit sphere of dimension d, x = v'f(A)v has the variance 2 / (d + 2) (mean f^2 - (mean f)^2), means
over eigenvalues. Both means are estimated from all vectors, at no further product; a sample variance of ten numbers
would be far rougher, and too small where the numbers are skewed.
"""

import math
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hessdiag.statistics import quantiles
from hessdiag.statistics.student import Z as Z

Floats = NDArray[np.float64]

V_co = TypeVar("V_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True)
class Estimated(Generic[V_co, E_co]):
    """A number, row or matrix as results hold it.

    Attributes:
        value: What it is.
        stderr: Its standard error; `None` where it is exact or not known.
        interval: The ends of 95 %, likewise.
    """

    value: V_co
    stderr: E_co | None = None
    interval: tuple[E_co, E_co] | None = None


EstimatedNumber: TypeAlias = Estimated[float | None, float]


@dataclass(frozen=True)
class Average:
    """A mean over probes, its standard error and a 95 % interval; numbers, or arrays of one shape.

    The intervals are not symmetric: the standard error is not for "plus or minus two". NaN where there is none.
    """

    value: Floats
    stderr: Floats
    low: Floats
    high: Floats

    def shifted(self, by: Floats | float) -> "Average":
        """The same with a known number added."""
        return Average(self.value + by, self.stderr, self.low + by, self.high + by)


def chi_square(mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Ends of the interval of a mean that cannot be negative: a multiple of a chi-square variable of that variance.

    >>> low, high = chi_square(np.array(1.0), np.array(0.02))  # 100 degrees of freedom
    >>> round(float(low), 4), round(float(high), 4)
    (0.7718, 1.3473)
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        freedom = np.clip(2 * mean * (mean / variance), 1.0, 1e12)
        low, high = (freedom * mean / quantiles.chi_square(tail, freedom) for tail in (0.975, 0.025))
    certain = ~(variance > 0) | ~(mean > 0)
    return np.where(certain, mean, low), np.where(certain, mean, high)


def plug_in(positive: Floats, negative: Floats, weights: Floats, dimension: int) -> Average:
    """The mean of f = positive - negative over a bulk of eigenvalues, from quadratures of k vectors.

    Args:
        positive: Where f > 0, its value at every node, (k, m, ...); else 0.
        negative: Where f < 0, that of -f, likewise.
        weights: Of the nodes, (k, m); each row sums to the bulk's share of the spectrum.
        dimension: Of the sphere that the vectors come from.

    Returns:
        The mean with an interval after Zou and Donner's MOVER: those of both parts by `chi_square`, joined with the
        correlation that the sphere gives them. Where one part is zero, it is the other's.
    """
    k = len(weights)
    bulk = float(weights.sum() / k)
    if not bulk > 0:
        zero = np.zeros(positive.shape[2:])
        return Average(zero, zero, zero, zero)
    scale = np.maximum(positive, negative).max((0, 1))
    scale = np.where(scale > 0, scale, 1.0)  # squares of small numbers would vanish
    share = (weights / (k * bulk)).reshape(-1)
    up, down = (part.reshape(len(share), *part.shape[2:]) / scale for part in (positive, negative))
    factor = bulk**2 * 2 / (dimension + 2) / k

    def moments(part: Floats) -> tuple[Floats, Floats]:
        mean = np.tensordot(share, part, axes=1)
        return mean, np.tensordot(share, (part - mean) ** 2, axes=1)

    (p, vp), (q, vq) = moments(up), moments(down)
    covariance = -factor * p * q
    variance_p, variance_q = factor * vp, factor * vq
    p, q = bulk * p, bulk * q
    low_p, high_p = chi_square(p, variance_p)
    low_q, high_q = chi_square(q, variance_q)
    product = np.sqrt(variance_p * variance_q)
    correlation = np.divide(covariance, product, out=np.zeros_like(product), where=product > 0).clip(-1, 1)

    def reach(a: Floats, b: Floats) -> Floats:
        return np.sqrt(np.maximum(a * a + b * b - 2 * correlation * a * b, 0.0))

    value = p - q
    stderr = np.sqrt(np.maximum(variance_p + variance_q - 2 * covariance, 0.0))
    low, high = value - reach(p - low_p, high_q - q), value + reach(high_p - p, q - low_q)
    return Average(scale * value, scale * stderr, scale * low, scale * high)


def normal(value: float, stderr: float) -> tuple[float, float]:
    """Ends of the interval of a normal estimate."""
    return value - Z * stderr, value + Z * stderr


def root(bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval of a root from that of its square."""
    low, high = (math.sqrt(max(end, 0.0)) for end in bounds)
    return low, high


def logistic(value: float, error: float) -> tuple[float, float]:
    """An interval of a share that stays within 0 and 1.

    >>> tuple(round(end, 4) for end in logistic(0.9, 0.02))
    (0.8534, 0.9329)
    """
    if not 0 < value < 1:
        return (min(max(value - Z * error, 0.0), 1.0), min(max(value + Z * error, 0.0), 1.0))
    logit, reach = math.log(value / (1 - value)), Z * error / (value * (1 - value))
    low, high = ((1 + math.tanh((logit + side * reach) / 2)) / 2 for side in (-1, 1))
    return low, high


def jackknife(left_out: Floats) -> float:
    """The variance of an estimate, from its values with one of n parts left out each, (n,) (Tukey 1958).

    >>> round(jackknife(np.array([5.0, 4.0, 3.0]) / 2), 9)  # of a mean of 1, 2 and 3: 1 / 3
    0.333333333
    """
    n = len(left_out)
    return (n - 1) / n * float(np.square(left_out - left_out.mean()).sum())
