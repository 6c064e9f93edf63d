"""The law of a product of independent random weights: moments, median, tails and density, exact and in logs.

Uniform weights: `-log(|v| / tau^L)` has a Gamma distribution. Normal weights: inversion of the moments `E|v|^s`, along
the line through the saddle point. Derivations: docs/concepts/chain.md.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import (
    digamma,
    erf,
    gammainc,
    gammaincc,
    gammaincinv,
    gammaln,
    iti0k0,
    k0e,
    k1e,
    loggamma,
    polygamma,
)  # fmt: skip

from hessdiag.errors import SpecError
from hessdiag.theory.gaussian_nets import median_log_norm2

Array = NDArray[np.float64]
Distribution = Literal["uniform", "normal"]

STEP = 0.1  # of the inversion integral, in standard deviations of its integrand


@dataclass(frozen=True)
class Law:
    """Law of the product of `length` independent weights. Length 0 is the constant 1.

    Attributes:
        length: Number L of weights.
        scale: tau of U[-tau, tau], or sigma of N(0, sigma^2).
        distribution: "uniform" or "normal".

    Raises:
        SpecError: for a negative length, a scale that is not positive and finite, or another distribution.

    >>> law = Law(10, 3**0.5)
    >>> round(math.exp(law.log_median), 7), round(math.exp(law.log_moment(1)), 6)
    (0.0153652, 0.237305)
    """

    length: int
    scale: float = 1.0
    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        if self.length < 0:
            raise SpecError(f"a product has no {self.length} factors.", "length=10")
        if not 0 < self.scale < math.inf:
            raise SpecError(f"the scale must be positive and finite, not {self.scale:g}.", "scale=1.7320508")
        if self.distribution not in get_args(Distribution):
            raise SpecError(f"unknown distribution {self.distribution!r}: uniform or normal.", "distribution='uniform'")

    def shorter(self, by: int) -> "Law":
        """The same without `by` of its factors."""
        return Law(self.length - by, self.scale, self.distribution)

    @property
    def log_scale(self) -> float:
        """Log of the product of all scales."""
        return self.length * math.log(self.scale)

    def log_moment(self, order: float) -> float:
        """`log E|v|^order`: `(tau^q / (q + 1))^L`, or `(sigma^q 2^{q/2} Gamma((q+1)/2) / sqrt(pi))^L`."""
        if self.distribution == "uniform":
            unit = -math.log1p(order)
        else:
            unit = order * math.log(2) / 2 + float(gammaln((order + 1) / 2)) - math.log(math.pi) / 2
        return order * self.log_scale + self.length * unit

    @property
    def log_median(self) -> float:
        """Log of the median of |v|. Uniform: `-log(|v| / tau^L)` is Gamma(L, 1) distributed."""
        if self.length == 0:
            return 0.0
        if self.distribution == "uniform":
            return self.log_scale - float(gammaincinv(self.length, 0.5))
        return self.log_scale + median_log_norm2(np.ones(self.length), 1.0, 1.0) / 2

    def cdf(self, log_size: ArrayLike) -> Array:
        """`P(|v| <= t)` at `log t`, of any shape; for lengths of at least 1."""
        y = np.asarray(log_size, dtype=float) - self.log_scale
        if self.distribution == "uniform":
            return np.asarray(gammaincc(self.length, np.maximum(-y, 0.0)))
        if self.length <= 2:
            size = np.exp(np.clip(y, -700.0, 6.0))  # beyond, nothing is left
            return np.asarray(erf(size / math.sqrt(2)) if self.length == 1 else 2 / math.pi * iti0k0(size)[1])
        return 1 - self.tail(log_size)

    def tail(self, log_size: ArrayLike) -> Array:
        """`P(|v| >= t)` at `log t`, with a small relative error far out too."""
        y = np.asarray(log_size, dtype=float) - self.log_scale
        if self.distribution == "uniform":
            return np.asarray(gammainc(self.length, np.maximum(-y, 0.0)))
        log_size, sign, left = _inversion(y.ravel(), self.length, pole=True)
        return np.reshape(left + sign * np.exp(log_size), y.shape)

    def log_density(self, log_size: ArrayLike) -> Array:
        """Log of the density of `log|v|`, of any shape; for lengths of at least 1."""
        y = np.asarray(log_size, dtype=float) - self.log_scale
        if self.distribution == "uniform":
            with np.errstate(divide="ignore", invalid="ignore"):
                inside = (self.length - 1) * np.log(-y) + y - gammaln(self.length)
            return np.where(y < 0, inside, -math.inf)
        if self.length == 1:
            return np.asarray(y + math.log(2 / math.pi) / 2 - np.exp(2 * y) / 2)
        if self.length == 2:
            return np.asarray(y + math.log(2 / math.pi) + np.log(k0e(np.exp(y))) - np.exp(y))
        return np.reshape(_inversion(y.ravel(), self.length, pole=False)[0], y.shape)

    def log_excess(self, log_size: Array) -> Array:
        """`log E[|v| 1(|v| > t)]` at `log t`, for one or two factors."""
        y = log_size - self.log_scale
        with np.errstate(divide="ignore"):
            if self.distribution == "uniform":
                tilted = np.log(gammainc(self.length, np.maximum(-2 * y, 0.0)))
                return np.asarray(self.log_moment(1) + tilted)
            if self.length == 1:
                return np.asarray(self.log_moment(1) - np.exp(np.minimum(2 * y, 99.0)) / 2)
            size = np.exp(np.clip(y, -99.0, 99.0))
            return np.asarray(self.log_moment(1) + np.log(size * k1e(size)) - size)


def _inversion(y: Array, length: int, *, pole: bool) -> tuple[Array, Array, Array]:
    """`(1/2 pi i) int e^{K(s) - s y} ds` along a vertical line, for the product of standard normals; `/ s` with a pole.

    `K(s) = log E|v|^s`. The line goes through the saddle point of the integrand, where nothing cancels: the density of
    `log|v|`, or its tail probability (less 1 left of the pole, which the third value gives back), has a small relative
    error however far out.

    Returns:
        Log of the modulus, sign, and 0 or 1 to be added; each (points,).
    """
    saddle = _saddle(y / length)
    if pole:
        least = 0.5 / math.sqrt(length)
        saddle = np.where(saddle >= 0, np.maximum(saddle, least), np.minimum(saddle, -least))
    unit = STEP / np.sqrt(length * polygamma(1, (saddle + 1) / 2) / 4)
    omega = np.multiply.outer(unit, np.arange(math.ceil((12 + 45 / length) / STEP)))
    s = saddle[:, None] + 1j * omega

    def exponent(s: NDArray[np.complex128]) -> NDArray[np.complex128]:
        K = length * (s * (math.log(2) / 2) + loggamma((s + 1) / 2) - math.log(math.pi) / 2)
        return np.asarray(K - s * y[:, None])

    height = exponent(s[:, :1]).real
    values = np.exp(exponent(s) - height) / (s if pole else 1.0)
    total = unit / math.pi * (values.sum(1).real - values[:, 0].real / 2)
    with np.errstate(divide="ignore"):
        log_size = height[:, 0] + np.log(np.abs(total))
    return log_size, np.sign(total), np.asarray((saddle < 0) & pole, dtype=float)


def _saddle(slope: Array) -> Array:
    """The s > -1 with `K'(s) / L = (log 2 + digamma((s + 1) / 2)) / 2` equal to the slope, by Newton's method."""
    target = 2 * np.clip(slope, -1e4, 8.0) - math.log(2)
    half = np.where(target > -2.22, np.exp(target) + 0.5, -1 / (target - digamma(1.0)))  # Minka's start
    for _ in range(8):
        half = np.maximum(half - (digamma(half) - target) / polygamma(1, half), half / 10)
    return np.asarray(2 * half - 1)
