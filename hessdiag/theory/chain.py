"""The network of width one: exact laws of its output, its derivatives and its inertia at random weights.

The chain is `f(w) = (v - 1)^2 / 2` with `v = w_1 ... w_L`, one sample x = y = 1, and independent weights from
U[-scale, scale] or N(0, scale^2), as in Orvieto et al., "Vanishing Curvature in Randomly Initialized Deep ReLU
Networks" (AISTATS 2022). Derivations: docs/concepts/chain.md. Everything is in logs, so nothing underflows.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq
from scipy.special import gammainccinv, logsumexp

from hessdiag.errors import SpecError
from hessdiag.theory.product_law import Array, Distribution, Law

NEGLIGIBLE = 1e-18  # probability left out of an integral over the law of a product
GRADING = 0.25  # ratio of the panels around the step where an end of the interval crosses 0
NODES, PANEL = 12, 0.5  # Gauss-Legendre nodes per panel of log|u|, and its width


class Size(NamedTuple):
    """How large a random quantity Z is: logs of typical sizes, and how rare its averages are.

    Attributes:
        log_median: Log of the median of |Z|.
        log_mean: `log E|Z|`.
        log_rms: `log sqrt(E Z^2)`.
        above_mean: `P(|Z| >= E|Z|)`.
        above_rms: `P(|Z| >= sqrt(E Z^2))`.
    """

    log_median: float
    log_mean: float
    log_rms: float
    above_mean: float
    above_rms: float


def product_size(law: Law) -> Size:
    """Of the output v.

    >>> size = product_size(Law(10, 3**0.5))
    >>> round(size.above_rms, 7), round(size.above_mean, 6)
    (0.0534184, 0.162624)
    """
    return _power_size(law, 1)


def diagonal_size(law: Law) -> Size:
    """Of a diagonal entry of the Hessian, `(v / w_i)^2`: it needs no approximation.

    >>> round(math.exp(diagonal_size(Law(10, 3**0.5)).log_median), 9)
    0.000581214
    """
    return _power_size(law.shorter(1), 2)


def gradient_size(law: Law) -> Size:
    """Of an entry of the gradient, `(v - 1) v / w_i`. Where v is small, it is v / w_i.

    >>> round(math.exp(gradient_size(Law(10, 3**0.5)).log_median), 4)  # v / w_i has 0.0241
    0.0238
    """
    return _residual_size(law, 1)


def offdiagonal_size(law: Law) -> Size:
    """Of an off-diagonal entry of the Hessian, `(2v - 1) v / (w_i w_k)`; for two weights or more.

    Raises:
        SpecError: for a chain of one weight.

    >>> round(math.exp(2 * offdiagonal_size(Law(10, 3**0.5)).log_rms), 3)
    441.798
    """
    if law.length < 2:
        raise SpecError("the Hessian of one weight has no off-diagonal entry.", "length=2")
    return _residual_size(law, 2)


def critical_scale(order: float, distribution: Distribution, length: int | None = None) -> float:
    """The scale at which `E|v|^order` neither vanishes nor explodes; order 0 is the median.

    For order > 0 it is `(order + 1)^(1/order)` (uniform), at any length; sqrt(3) and 2 keep the second moment and the
    mean. The limit at 0, e (uniform) or sqrt(2 e^gamma) (normal), keeps the median of long chains.

    Args:
        order: Of the moment, at least 0.
        distribution: "uniform" or "normal".
        length: For order 0, the length at which the median is 1 exactly; None for the limit of long chains.

    >>> critical_scale(2, "uniform"), round(critical_scale(0, "normal"), 5)
    (1.7320508075688772, 1.88736)
    >>> round(critical_scale(0, "uniform", length=10), 5)
    2.6297
    """
    if order > 0:
        return math.exp(-Law(1, 1.0, distribution).log_moment(order) / order)
    if length is not None:
        return math.exp(-Law(length, 1.0, distribution).log_median / length)
    return math.e if distribution == "uniform" else math.sqrt(2 * math.exp(np.euler_gamma))


def stabilized_order(scale: float, distribution: Distribution) -> float | None:
    """The order q > 0 of the moment `E|v|^q` that stays 1 at this scale, whatever the length.

    Returns:
        None if lower orders than any explode (a scale above that of the median), or if all moments vanish (uniform
        weights within [-1, 1]).

    >>> round(stabilized_order(3**0.5, "uniform"), 9), stabilized_order(3.0, "uniform"), stabilized_order(1, "uniform")
    (2.0, None, None)
    """

    def excess(log_order: float) -> float:
        return math.log(critical_scale(math.exp(log_order), distribution) / scale)

    low, high = math.log(1e-6), math.log(1e6)
    if excess(low) <= 0 or excess(high) >= 0:
        return None
    return math.exp(float(brentq(excess, low, high, xtol=1e-13)))


class InertiaShares(NamedTuple):
    """Probabilities of what the Hessian's eigenvalues are.

    Attributes:
        definite: All positive.
        one_negative: One negative, the others positive.
        one_positive: One positive, two or more negative.
    """

    definite: float
    one_negative: float
    one_positive: float


def peak(length: int) -> float:
    """The output `(L - 1) / (2L - 1)` from which on the Hessian is positive definite, until v = 1.

    At equal weights the gradient is largest there.

    >>> peak(10)
    0.47368421052631576
    """
    return (length - 1) / (2 * length - 1)


def inertia(product: float, length: int) -> tuple[int, int]:
    """How many eigenvalues are positive, and how many negative: the output alone decides.

    The Hessian is congruent to `alpha (11' - I) + beta I`, `alpha = v (2v - 1)`, `beta = v^2`: one eigenvalue has the
    sign of `v ((2L - 1) v - (L - 1))`, the others that of `v (1 - v)`.

    Args:
        product: Output v; not 0, (L-1)/(2L-1) or 1, where the Hessian is singular.
        length: Number of weights.

    >>> inertia(-0.1, 10), inertia(0.1, 10), inertia(0.9, 10)
    ((1, 9), (9, 1), (10, 0))
    """
    positive = int(product * ((2 * length - 1) * product - (length - 1)) > 0) + (length - 1) * int(0 < product < 1)
    return positive, length - positive


def inertia_shares(law: Law) -> InertiaShares:
    """Probabilities of the Hessian's kinds at random weights.

    >>> [round(share, 3) for share in inertia_shares(Law(10, 3**0.5))]
    [0.024, 0.449, 0.527]
    """
    if law.length == 1:
        return InertiaShares(1.0, 0.0, 0.0)
    small = float(law.cdf(math.log(peak(law.length)))) / 2
    large = float(law.tail(0.0)) / 2
    definite = max(0.5 - small - large, 0.0)
    if law.length == 2:  # one of each sign, whether v is negative, small or large
        return InertiaShares(definite, 1 - definite, 0.0)
    return InertiaShares(definite, small, 0.5 + large)


def _power_size(law: Law, power: int) -> Size:
    """Size of `|u|^power` for u of the given law."""
    log_mean, log_rms = law.log_moment(power), law.log_moment(2 * power) / 2
    if law.length == 0:
        return Size(0.0, 0.0, 0.0, 1.0, 1.0)
    above_mean, above_rms = (float(law.tail(log / power)) for log in (log_mean, log_rms))
    return Size(power * law.log_median, log_mean, log_rms, above_mean, above_rms)


def _residual_size(law: Law, removed: int) -> Size:
    """Size of `Z = (k p u - 1) u`: p is the product of k removed weights, u that of all others.

    Given u, everything is known of Z in closed form, since p is symmetric: `E|k p u - 1| = 1 + a E[|p| 1(|p| > 1/a)] -
    P(|p| > 1/a)` with `a = k|u|`, and `|Z| <= t` says that p lies in an interval. What is left is one integral over u.
    """
    others, factor = law.shorter(removed), Law(removed, law.scale, law.distribution)
    log_k = math.log(removed)
    density = _fast_log_density(others)
    y, log_weight = _nodes(others, density, [-log_k - factor.log_scale])
    log_a = log_k + y
    with np.errstate(divide="ignore"):
        log_mean_factor = np.logaddexp(np.log(factor.cdf(-log_a)), log_a + factor.log_excess(-log_a))
    log_mean = float(logsumexp(log_weight + y + log_mean_factor))
    square = 2 * log_k + factor.log_moment(2) + others.log_moment(4)
    log_rms = float(np.logaddexp(square, others.log_moment(2))) / 2

    def cdf(log_size: float) -> float:
        kinks = _kinks(log_size, log_k + factor.log_scale) if law.distribution == "uniform" else []
        kinks += [log_size + sign * GRADING**power for sign in (-1, 0, 1) for power in range(13)]  # a narrow step
        y, log_weight = _nodes(others, density, kinks)
        gap = log_size - y  # of t / |u|
        with np.errstate(divide="ignore", over="ignore"):
            upper = factor.cdf(np.logaddexp(0, gap) - y - log_k)
            lower = factor.cdf(np.maximum(gap, 0) + np.log(-np.expm1(-np.abs(gap))) - y - log_k)
        return float(np.exp(log_weight) @ (upper + np.sign(gap) * lower) / 2)

    low = high = others.log_median
    step = 1.0
    while cdf(low) > 0.5 or cdf(high) < 0.5:
        low, high, step = low - step, high + step, 2 * step
    log_median = float(brentq(lambda log_size: cdf(log_size) - 0.5, low, high, xtol=1e-10))
    return Size(log_median, log_mean, log_rms, max(1 - cdf(log_mean), 0.0), max(1 - cdf(log_rms), 0.0))


def _kinks(log_size: float, log_edge: float) -> list[float]:
    """Where the ends of the interval for a bounded p cross its edge: `edge u^2 = +-u +-t`, in `log|u|`.

    In units of 1 / edge for u, the roots depend on `c = edge t` alone: `(sqrt(1 + 4c) +- 1) / 2` and
    `(1 +- sqrt(1 - 4c)) / 2`.
    """
    log_c = log_size + log_edge
    root = float(np.logaddexp(0, math.log(4) + log_c)) / 2  # log sqrt(1 + 4c)
    large = float(np.logaddexp(root, 0)) - math.log(2)
    scaled = [large, log_c - large]  # the product of the two roots is c
    if log_c < -math.log(4):
        large = math.log((1 + math.sqrt(1 - 4 * math.exp(log_c))) / 2)
        scaled += [large, log_c - large]
    return [log - log_edge for log in scaled]


def _nodes(law: Law, density: Callable[[Array], Array], breaks: Sequence[float]) -> tuple[Array, Array]:
    """Points `log|u|` and the logs of their masses, for integrals over the law of u; no panel contains a break."""
    if law.length == 0:
        return np.zeros(1), np.zeros(1)
    low, high = _support(law)
    edges = np.unique([*np.linspace(low, high, math.ceil((high - low) / PANEL) + 1), *np.clip(breaks, low, high)])
    node, weight = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges) / 2
    y = (edges[:-1] + half)[:, None] + np.multiply.outer(half, node)
    log_weight = np.log(np.multiply.outer(half, weight)) + density(y)
    return y.ravel(), log_weight.ravel()


def _support(law: Law) -> tuple[float, float]:
    """Where the law of `log|u|` lives, and the same weighted by `u^2`."""
    low, high = -float(gammainccinv(law.length, NEGLIGIBLE)), 0.0  # exact if uniform; normal weights lie to the right
    if law.distribution == "normal":  # weighted by u^2, its mean is 0.365 per factor and its deviation 0.48
        high = 0.37 * law.length + 5 * math.sqrt(law.length) + 3
    return low + law.log_scale, high + law.log_scale


def _fast_log_density(law: Law) -> Callable[[Array], Array]:
    """The log density for many points: a spline through it, where it is an integral itself."""
    if law.distribution == "uniform" or law.length <= 2:
        return law.log_density
    low, high = _support(law)
    grid = np.linspace(low, high, math.ceil((high - low) / (0.06 * math.sqrt(law.length))) + 8)
    spline: Callable[[Array], Array] = make_interp_spline(grid, law.log_density(grid), k=7)
    return spline
