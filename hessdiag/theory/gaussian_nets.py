"""Exact law of forward norms and vector-Jacobian products in fully connected networks with Gaussian weights.

Layers are `h_l = phi(W_l h_{l-1})` without biases, W_l of shape (d_l, d_{l-1}) with independent entries of
variance sigma_l^2, and phi piecewise linear with slope 1 above zero and `slope` below: 1 is a linear layer, 0
is ReLU, anything else leaky ReLU. Assumption 1 of Orvieto et al., "Vanishing Curvature in Randomly
Initialized Deep ReLU Networks" (AISTATS 2022), allows any symmetric law of the weights: `moments` holds for
those. Everything else needs Gaussian weights. Derivations: docs/concepts/theory.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, digamma, gammaln, loggamma, polygamma

from hessdiag.errors import SpecError
from hessdiag.theory.inversion import panels, quantile

Array = NDArray[np.float64]

NEGLIGIBLE = 1e-20  # probability below which a part of a mixture is left out
TAIL = 1e-16  # modulus of the characteristic function where its integral is cut off
NEAR = 0.02  # standard deviations around a first guess of the median


class Cumulants(NamedTuple):
    """First three cumulants of a log factor: mean, variance, and third central moment."""

    mean: float
    variance: float
    third: float


class Moments(NamedTuple):
    """Moments of `h_0 .. h_L`, each of shape (L+1,): `E||h||^2`, `E||h||^4` and `E sum_i h_i^4`."""

    norm2: Array
    norm4: Array
    sum4: Array


def gate_moments(slope: float) -> tuple[float, float]:
    """`p = E D^2` and `p2 = E D^4` of the gate D, which is 1 or `slope` with equal probability.

    Example:
        >>> gate_moments(0.0), gate_moments(1.0)
        ((0.5, 0.5), (1.0, 1.0))
    """
    return (1 + slope**2) / 2, (1 + slope**4) / 2


def log_factor_cumulants(width: int, variance: float, slope: float) -> Cumulants:
    """Cumulants of `log F`, `F = ||h_l||^2 / ||h_{l-1}||^2`, for one layer with Gaussian weights.

    F is `sigma^2 chi^2_d` (linear), `sigma^2 chi^2_K` with K ~ Binomial(d, 1/2) (ReLU, here given that K >=
    1), or `sigma^2 (chi^2_K + slope^2 chi^2_{d-K})` (leaky), independent from layer to layer and of the
    input.

    Args:
        width: Fan-out d of the layer.
        variance: Variance of a weight.
        slope: Slope of the activation below zero.

    Returns:
        Mean, variance and third cumulant, in nats; the mean is accurate to 1e-10, the others to 1e-9.

    Raises:
        SpecError: If `width < 1` or `variance <= 0`.

    Example:
        >>> cumulants = log_factor_cumulants(8, variance=1 / 8, slope=1.0)
        >>> round(cumulants.mean, 6), round(cumulants.variance, 6)
        (-0.130177, 0.283823)
    """
    _layers(width, variance, slope)
    dof, weight = _chi_squares(width, slope)
    mean, variance_given, third_given = digamma(dof / 2), polygamma(1, dof / 2), polygamma(2, dof / 2)
    centred = mean - weight @ mean
    point, mass = _log_mixing(width, slope, 0.0)
    deviation = point - mass @ point
    return Cumulants(
        float(math.log(2 * variance) + weight @ mean + mass @ point),
        float(weight @ (variance_given + centred**2) + mass @ deviation**2),
        float(weight @ (third_given + 3 * centred * variance_given + centred**3) + mass @ deviation**3),
    )


def dead_probability(widths: ArrayLike, slope: ArrayLike) -> float:
    """Probability that all units of some ReLU layer are off, so that the output is 0: `1 - prod(1 - 2^-d_l)`.

    Holds for independent weights of any symmetric law without an atom at 0, for one sample.

    Args:
        widths: (L,) fan-outs d_1 .. d_L of the layers.
        slope: Slope below zero, for all layers or (L,) one by one; only layers with slope 0 can die.

    Example:
        >>> round(dead_probability([8] * 16, slope=0.0), 7)
        0.0607019
    """
    widths, _, slopes = _layers(widths, 1.0, slope)
    return -math.expm1(float(np.log1p(-(2.0 ** -widths[slopes**2 == 0])).sum())) + 0.0


def quantile_log_norm2(q: float, widths: ArrayLike, variances: ArrayLike, slope: ArrayLike) -> float:
    """The q-quantile of `log(||h_L||^2 / ||h_0||^2)` over live networks with Gaussian weights.

    Among all networks, the dead (`dead_probability`) come first: their q-quantile is that at `(q - dead) / (1 - dead)`.

    By inversion of the characteristic function `prod_l E F_l^{it}` (`hessdiag.theory.inversion`). Equal layers are
    raised to a power, so depth costs nothing. The distribution function is accurate to 1e-11, the quantile to 1e-8 or
    better while 1e-4 < q < 1 - 1e-4.

    Args:
        q: Probability, between 1e-9 and 1 - 1e-9.
        widths: (L,) fan-outs d_1 .. d_L of the layers.
        variances: Variance of a weight, for all layers or (L,) one by one.
        slope: Slope below zero, for all layers or (L,) one by one (1 for a linear output).

    Returns:
        The quantile, in nats, of the squared norm (halve it for the norm); 0 for no layers.

    Raises:
        SpecError: If q, a width or a variance is out of range, or the shapes do not agree.

    Example:
        >>> round(quantile_log_norm2(0.5, [32] * 128, 1 / 32, slope=1.0), 5)
        -4.03091
    """
    widths, variances, slopes = _layers(widths, variances, slope)
    if not 0 < q < 1:
        raise SpecError(f"q is {q}, but a quantile's probability lies between 0 and 1.", "q=0.5 for the median")
    if widths.size == 0:
        return 0.0
    if not 1e-9 <= q <= 1 - 1e-9:
        raise SpecError(f"The quantile at {q:.3g} of live networks is too far out to compute.", "1e-9 < q < 1 - 1e-9")

    # One entry per kind of layer. The variances only shift the sum of logs.
    kinds, counts = np.unique(np.column_stack([widths, slopes**2]), axis=0, return_counts=True)
    layers = [(int(width), math.sqrt(slope2), int(count)) for (width, slope2), count in zip(kinds, counts, strict=True)]
    cumulants = [(log_factor_cumulants(width, 0.5, slope), count) for width, slope, count in layers]
    mean = sum(count * c.mean for c, count in cumulants)
    spread = math.sqrt(sum(count * c.variance for c, count in cumulants))

    t, step = panels(_cutoff(layers, spread))
    characteristic = np.ones(t.shape, dtype=np.complex128)
    for width, slope, count in layers:
        characteristic *= _characteristic(width, slope, t) ** count
    centred = quantile(characteristic * np.exp(-1j * t * mean), t, step, q, 0.0, 4 * spread)
    return mean + centred + float(np.log(2 * variances).sum())


def median_log_norm2(widths: ArrayLike, variances: ArrayLike, slope: ArrayLike) -> float:
    """Median of `log(||h_L||^2 / ||h_0||^2)` over live networks with Gaussian weights.

    To leading order `L mean - third / (6 variance)` of `log_factor_cumulants`: at `p d sigma^2 = 1` about
    -L/d for linear and -5L/2d for ReLU layers.

    Example:
        >>> round(median_log_norm2([32] * 128, 2 / 32, slope=0.0), 4)
        -10.5256
    """
    return quantile_log_norm2(0.5, widths, variances, slope)


def median_log_norms2(depth: int, width: int, variance: float, slope: float) -> Array:
    """`median_log_norm2` of 1 .. depth equal layers, (depth,), to 1e-10, at a small part of the cost.

    The depths of one octave share the frequencies of its shallowest: characteristic functions, which cost the most,
    are computed once per octave, and raised to the power of each depth.

    Args:
        depth: Largest number of layers.
        width: Width d of all layers.
        variance: Variance of a weight.
        slope: Slope of the activation below zero.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> [round(float(median), 5) for median in median_log_norms2(128, 32, 2 / 32, slope=0.0)[[0, 127]]]
        [-0.04687, -10.52556]
    """
    if depth < 1:
        raise SpecError(f"The depth is {depth}, but a network has at least 1 layer.")
    cumulants = log_factor_cumulants(width, 0.5, slope)
    spread, found = math.sqrt(cumulants.variance), np.empty(depth)
    for octave in range(depth.bit_length()):
        shallowest = 2**octave
        t, step = panels(_cutoff([(width, slope, shallowest)], spread * math.sqrt(shallowest)))
        log = np.log(_characteristic(width, slope, t)) - 1j * t * cumulants.mean
        for layers in range(shallowest, min(2 * shallowest, depth + 1)):
            skew = -cumulants.third / (6 * cumulants.variance)
            reach = NEAR * spread * math.sqrt(layers)
            found[layers - 1] = quantile(np.exp(layers * log), t, step, 0.5, skew, reach)
    shift: Array = np.arange(1.0, depth + 1) * (cumulants.mean + math.log(2 * variance))
    return found + shift


def vjp_median_log_norm2(depth: int, width: int, variance: float, slope: float) -> float:
    """Median of `log(||d<u, z>/dW_l||_F^2 / (||u||^2 ||x||^2))` over live networks with Gaussian weights.

    The cotangent u is fixed. The squared norm is `||u||^2 ||x||^2` times depth - 1 independent factors F, so
    its law is the same for every layer l. It is the part of a loss gradient that the targets cause (r ~ -y).

    Args:
        depth: Number L of weight matrices; the last one has no activation.
        width: Width d of all hidden layers.
        variance: Variance of a weight.
        slope: Slope of the activation below zero.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> round(vjp_median_log_norm2(33, 16, 2 / 16, slope=0.0), 5)
        -5.53653
    """
    if depth < 1:
        raise SpecError(f"The depth is {depth}, but a network has at least 1 weight matrix.")
    return median_log_norm2(np.full(depth - 1, width), variance, slope)


def median_stabilizing_variance(width: int, slope: float, depth: int | None = None) -> float:
    """The `p d sigma^2` at which the median squared norm is kept, instead of its mean (which wants 1).

    Args:
        width: Width d of all layers.
        slope: Slope of the activation below zero.
        depth: Number of layers over which it is kept; None for the limit of infinite depth, `exp(-E log F)`
            at `p d sigma^2 = 1`.

    Returns:
        `p d sigma^2`, above 1; multiply a variance-preserving initialization's variance by it.

    Example:
        >>> round(median_stabilizing_variance(32, slope=0.0), 5)
        1.08604
        >>> round(median_stabilizing_variance(32, slope=0.0, depth=128), 5)
        1.08571
    """
    neutral = 1 / (gate_moments(slope)[0] * width)
    if depth is None:
        return math.exp(-log_factor_cumulants(width, neutral, slope).mean)
    return math.exp(-median_log_norm2(np.full(depth, width), neutral, slope) / depth)


def moments(
    widths: ArrayLike,
    variances: ArrayLike,
    kurtosis: float,
    slope: ArrayLike,
    start: tuple[float, float, float],
) -> Moments:
    """Second and fourth moments of the activations, layer by layer, for any symmetric law of the weights.

    Dead networks count. With variance sigma^2, kurtosis kappa and fan-out d, exactly
    `S2' = p d sigma^2 S2`, `Q' = p2 d sigma^4 (3 S4 + (kappa - 3) Q)`, `S4' = p^2 d (d-1) sigma^4 S4 + Q'`:
    the coupled recursion of "Vanishing Curvature" (Assumption 1), written for post-activations.

    Args:
        widths: (L,) fan-outs d_1 .. d_L of the layers.
        variances: Variance of a weight, for all layers or (L,) one by one.
        kurtosis: `E w^4 / sigma^4`: 3 Gaussian, 9/5 uniform.
        slope: Slope below zero, for all layers or (L,) one by one.
        start: `(||x||^2, ||x||^4, sum_i x_i^4)` of the input.

    Returns:
        `Moments` of h_0 .. h_L.

    Raises:
        SpecError: If a width, a variance or the kurtosis is out of range, or the shapes do not agree.

    Example:
        >>> round(float(moments([8] * 6, 1 / 8, 3.0, 1.0, start=(1, 1, 1 / 8)).norm4[-1]), 5)
        3.8147
    """
    widths, variances, slopes = _layers(widths, variances, slope)
    refuse_kurtosis(kurtosis)
    rows = [tuple(map(float, start))]
    for d, variance, layer_slope in zip(widths, variances, slopes, strict=True):
        p, p2 = gate_moments(layer_slope)
        s2, s4, q = rows[-1]
        q_next = p2 * d * variance**2 * (3 * s4 + (kurtosis - 3) * q)
        rows.append((p * d * variance * s2, p**2 * d * (d - 1) * variance**2 * s4 + q_next, q_next))
    return Moments(*np.array(rows).T)


def refuse_kurtosis(kurtosis: float) -> None:
    """Refuse what no law has: `E w^4` is at least the square of `E w^2`.

    Raises:
        SpecError: If it is below 1.
    """
    if kurtosis < 1:
        raise SpecError(f"The kurtosis is {kurtosis}, but none lies below 1.", "kurtosis=3 (Gaussian) or 1.8 (uniform)")


def _layers(widths: ArrayLike, variances: ArrayLike, slope: ArrayLike) -> tuple[Array, Array, Array]:
    """Widths, variances and slopes as three arrays (L,), checked."""
    widths = np.atleast_1d(np.asarray(widths, dtype=np.float64))
    try:
        variances = np.broadcast_to(np.asarray(variances, dtype=np.float64), widths.shape)
        slopes = np.broadcast_to(np.asarray(slope, dtype=np.float64), widths.shape)
    except ValueError:
        raise SpecError(f"Variances and slopes must be one number, or one per layer ({widths.size}).") from None
    if np.any(widths < 1):
        raise SpecError(f"A layer has width {widths.min():g}, but a width is at least 1.")
    if not np.all(variances > 0):
        raise SpecError(f"A weight variance is {variances.min():g}, but must be above 0.")
    return widths, variances, slopes


def _chi_squares(width: int, slope: float) -> tuple[Array, Array]:
    """Degrees of freedom and probabilities of the chi-squares in F: K given K >= 1 for ReLU, else d alone."""
    if slope**2 != 0:
        return np.array([float(width)]), np.ones(1)
    k, log_weight = _binomial(width)
    weight = np.exp(log_weight - math.log1p(-(2.0**-width)))
    keep = (weight > NEGLIGIBLE) & (k > 0)
    return k[keep], weight[keep]


def _binomial(width: int) -> tuple[Array, Array]:
    """0..d and the log probabilities of Binomial(d, 1/2)."""
    k = np.arange(width + 1.0)
    return k, gammaln(width + 1) - gammaln(k + 1) - gammaln(width - k + 1) - width * math.log(2)


def _log_mixing(width: int, slope: float, frequency: float) -> tuple[Array, Array]:
    """Points and masses that stand for the law of `log(B + s^2 (1 - B))` at slope s.

    In law chi^2_K + s^2 chi^2_{d-K} = chi^2_d (B + s^2 (1 - B)), where B ~ Beta(K/2, (d-K)/2) is independent
    of chi^2_d. Over `y = logit B` its density is analytic and decays exponentially, so the trapezoid rule
    converges geometrically; the step resolves both the density and `e^{it log(...)}` up to the given
    frequency.
    """
    s2 = slope**2
    if s2 in (0.0, 1.0):
        return np.zeros(1), np.ones(1)
    k, log_weight = _binomial(width)
    step = 2 * math.pi / (frequency + 12 + 8 * math.sqrt(width))
    y = np.arange(-90.0, 90.0, step)
    inner = (np.exp(log_weight) > NEGLIGIBLE) & (k > 0) & (k < width)
    log_b, log_rest = -np.logaddexp(0, -y), -np.logaddexp(0, y)
    mass = np.zeros_like(y)
    for a, b, w in zip(k[inner] / 2, (width - k[inner]) / 2, log_weight[inner], strict=True):
        mass += step * np.exp(w - betaln(a, b) + a * log_b + b * log_rest)
    keep = mass > NEGLIGIBLE
    ends = np.exp(log_weight[[0, -1]])  # all units below zero, or all above
    point = np.logaddexp(y, math.log(s2)) - np.logaddexp(y, 0)
    return np.append(point[keep], [math.log(s2), 0.0]), np.append(mass[keep], ends)


def _characteristic(width: int, slope: float, t: Array) -> NDArray[np.complex128]:
    """`E F^{it}` at frequencies t, for `sigma^2 = 1/2`."""
    value = np.zeros(t.shape, dtype=np.complex128)
    for k, weight in zip(*_chi_squares(width, slope), strict=True):
        value += weight * np.exp(loggamma(k / 2 + 1j * t) - gammaln(k / 2))
    point, mass = _log_mixing(width, slope, float(t.max()))
    value *= np.exp(1j * np.multiply.outer(t, point)) @ mass
    return value


def _cutoff(layers: list[tuple[int, float, int]], spread: float) -> float:
    """The frequency beyond which the characteristic function of a sum is negligible; layers: (width, slope, count)."""
    end = 1 / spread
    while sum(count * _log_envelope(width, slope, end) for width, slope, count in layers) > math.log(TAIL):
        end *= 1.25
    return end


def _log_envelope(width: int, slope: float, t: float) -> float:
    """Log of a decreasing bound on the modulus of `_characteristic`: the mixture with all phases aligned."""
    dof, weight = _chi_squares(width, slope)
    return float(np.log(weight @ np.exp(loggamma(dof / 2 + 1j * t).real - gammaln(dof / 2))))
