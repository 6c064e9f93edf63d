"""How fast norms, gradients and Hessian blocks grow or vanish per layer, in mean square and in median.

For square networks (every width d, one weight variance) as in Orvieto et al., "Vanishing Curvature in
Randomly Initialized Deep ReLU Networks" (AISTATS 2022), whose rates are those of expectations. Rates of
medians: docs/concepts/theory.md.
"""

import math
from typing import NamedTuple

import numpy as np

from hessdiag.theory.gaussian_nets import gate_moments, log_factor_cumulants, refuse_kurtosis


class Growth(NamedTuple):
    """Natural logs, per layer: of the root mean square, and of the median."""

    rms: float
    median: float


def inverse_participation(width: int, slope: float) -> float:
    """`E(sum_i h_i^4 / ||h||^4)` over live layers with Gaussian pre-activations.

    It is `3/(d+2)` linear and `E 3/(K+2)` ReLU, K being the number of units that are on. Computed from
    `1/S^2 = int_0^inf t e^{-tS} dt`, which factorizes over units, by the trapezoid rule in log t; accurate to
    1e-10.

    Args:
        width: Units d of the layer.
        slope: Slope of the activation below zero.

    Example:
        >>> round(inverse_participation(32, slope=1.0), 6) == round(3 / 34, 6)
        True
    """
    s2 = slope**2
    log_t, step = np.linspace(-40.0, 80.0 - math.log(min(1.0, max(s2, 1e-30))), 4001, retstep=True)
    t = np.exp(log_t)
    above, below = 1 + 2 * t, 1 + 2 * t * s2
    others = ((above**-0.5 + below**-0.5) / 2) ** (width - 1)  # E exp(-t h_i^2) of the other units
    unit = 3 / 2 * (above**-2.5 + s2**2 * below**-2.5)  # E h_i^4 exp(-t h_i^2)
    live = -math.expm1(-width * math.log(2)) if s2 == 0 else 1.0
    return float(step * width * (t**2 * unit * others).sum() / live)


def growth(width: int, variance: float, slope: float, kurtosis: float = 3.0) -> Growth:
    """Growth of a forward norm (or of a vector-Jacobian product's) per layer.

    The mean square grows by `rho = p d sigma^2` for any symmetric law of the weights. The median follows the
    mean of the log: exactly for Gaussian weights, given that the network is alive; for another kurtosis, the
    mean log of the squared norm is shifted by `(3 - kurtosis) p2 q / (2 p^2 d)` with q of
    `inverse_participation`: the first order in 1/d, good to about 5 % of the shift from d = 32 on.

    Args:
        width: Width d of every layer.
        variance: Variance of a weight.
        slope: Slope of the activation below zero.
        kurtosis: `E w^4 / sigma^4`: 3 Gaussian, 9/5 uniform.

    Returns:
        Log growth of the norm (not squared), in nats per layer.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> rms, median = growth(32, 1 / 32, slope=1.0)
        >>> round(rms, 6), round(median, 6)
        (0.0, -0.015788)
    """
    refuse_kurtosis(kurtosis)
    mean_log = log_factor_cumulants(width, variance, slope).mean
    p, p2 = gate_moments(slope)
    if kurtosis != 3:
        mean_log += (3 - kurtosis) * p2 / (2 * p**2 * width) * inverse_participation(width, slope)
    return Growth(0.5 * math.log(p * width * variance), 0.5 * mean_log)


def fourth_moment_growth(width: int, variance: float, slope: float, kurtosis: float = 3.0) -> float:
    """Log growth per layer of `E||h||^4`: the largest eigenvalue of the recursion of `gaussian_nets.moments`.

    At `p d sigma^2 = 1` and Gaussian weights it is `log(1 + 2/d)` linear and `log(1 + 5/d)` ReLU. The fourth
    moments of the Jacobians, `E tr((PP^T)^2)`, grow alike: their recursion has the same largest eigenvalue.

    Example:
        >>> import math
        >>> round(math.exp(fourth_moment_growth(32, 2 / 32, slope=0.0)), 6) == 1 + 5 / 32
        True
    """
    p, p2 = gate_moments(slope)
    unit = p2 * width * np.array([[3.0, kurtosis - 3], [3.0, kurtosis - 3]])
    unit[0, 0] += p**2 * width * (width - 1)
    return 2 * math.log(variance) + math.log(np.linalg.eigvals(unit).real.max())


def rates(width: int, variance: float, slope: float, kurtosis: float = 3.0) -> dict[str, dict[str, float]]:
    """Asymptotic log growth per layer of gradient and Hessian norms under the half squared error, one sample.

    With `a` the growth of a typical norm (`growth(...).median`), `r` that of the mean square
    (`growth(...).rms`) and `g` half that of the fourth moment (`fourth_moment_growth(...) / 2`):

    - `vjp`, a gradient with a fixed cotangent: median a, rms r.
    - `gradient`: the residual z - y is -y where outputs vanish (a <= 0) and z where they explode: median a,
      or 2a if a > 0; rms the larger of r (targets) and g (output).
    - `hessian_offdiagonal_blocks`: likewise; each block is a residual, a Jacobian between two layers, and the
      norms outside.
    - `hessian_diagonal_blocks`, pure Gauss-Newton, two factors of every layer: median 2a, rms g.
    - `hessian`: the larger of the two kinds of blocks.

    Assumptions: width d in every layer, d fixed while depth grows, no biases. A Jacobian between two layers
    that are fewer than about d apart averages over its columns, so that at depths up to d the median of the
    Hessian decays more slowly than a. Medians are those of live networks; mean squares include dead ones.
    For a kurtosis other than 3 the medians are approximate (see `growth`).

    Args:
        width: Width d of every layer.
        variance: Variance of a weight.
        slope: Slope of the activation below zero; 1 is a linear network.
        kurtosis: `E w^4 / sigma^4`: 3 Gaussian, 9/5 uniform.

    Returns:
        For each quantity, `{"rms": ..., "median": ...}` in nats per layer, of norms that are not squared.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> lecun = rates(32, variance=1 / 96, slope=1.0, kurtosis=1.8)
        >>> round(lecun["gradient"]["rms"], 6), round(lecun["hessian_diagonal_blocks"]["rms"], 3)
        (-0.549306, -1.07)
    """
    rms, median = growth(width, variance, slope, kurtosis)
    fourth = fourth_moment_growth(width, variance, slope, kurtosis) / 2
    diagonal = {"rms": fourth, "median": 2 * median}
    mixed = {"rms": max(rms, fourth), "median": max(median, 2 * median)}
    return {
        "vjp": {"rms": rms, "median": median},
        "gradient": mixed,
        "hessian": {key: max(diagonal[key], mixed[key]) for key in mixed},
        "hessian_diagonal_blocks": diagonal,
        "hessian_offdiagonal_blocks": dict(mixed),
    }
