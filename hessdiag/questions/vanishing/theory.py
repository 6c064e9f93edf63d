"""What closed forms predict for the networks that `vanishing` measures."""

import math
from dataclasses import dataclass

import numpy as np

from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import Distribution, law
from hessdiag.theory import expectations, gaussian_nets
from hessdiag.theory.rates import growth, rates

MODERATE = 700.0  # logs beyond this leave float64


@dataclass(frozen=True)
class Theory:
    """Asymptotic predictions for one width.

    Attributes:
        mean_square_growth: rho, the factor by which a layer multiplies the expected squared norm; 1 is critical.
        typical_growth: The factor by which a layer multiplies the norm of a typical network.
        rates: Natural log per layer of each quantity's median.
        critical_width_per_depth: At rho = 1, the width per layer of depth at which the median norm halves.
        exact: Whether the medians are exact laws (Gaussian weights) or first order in 1 / width.
    """

    mean_square_growth: float
    typical_growth: float
    rates: dict[str, float]
    critical_width_per_depth: float
    exact: bool


def predict(init: str, name: str, width: int, distribution: Distribution | None = None) -> Theory | None:
    """Predictions for square networks; `None` for curved activations and dependent weights, which have no closed form.

    >>> round(predict("he_normal", "relu", 32).typical_growth, 4)
    0.9596
    """
    slope = activation(name).slope
    weights = law(init, width, width, distribution)
    if slope is None or weights is None:
        return None
    per_layer = growth(width, weights.variance, slope, weights.kurtosis)
    critical = growth(width, weights.variance / math.exp(2 * per_layer.rms), slope, weights.kurtosis)
    return Theory(
        mean_square_growth=math.exp(2 * per_layer.rms),
        typical_growth=math.exp(per_layer.median),
        rates={key: value["median"] for key, value in rates(width, weights.variance, slope, weights.kurtosis).items()},
        critical_width_per_depth=-critical.median * width / math.log(2),
        exact=weights.distribution == "normal",
    )


def exact_values(ensemble: Ensemble, name: str) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    """Exact root mean squares and medians at one depth, by quantity; `None` where there are none.

    Root mean squares of gradient and Hessian are known for one sample and Gaussian weights; those of vector-Jacobian
    products for any symmetric law. Medians of vector-Jacobian products are known for Gaussian weights.
    """
    slope = activation(name).slope
    L, d = ensemble.depth, ensemble.width
    weights = law(ensemble.init, d, d, ensemble.distribution)
    if slope is None or weights is None:
        return None, None
    with np.errstate(all="ignore"):  # what leaves float64 is left out below
        rms = {"vjp": float(np.exp((L - 1) * growth(d, weights.variance, slope).rms))}
        if weights.distribution == "normal" and ensemble.batch == 1:
            widths = [d] * (L + 1)
            blocks = expectations.expected_block_norm2(widths, weights.variance, slope, d, d)
            gradients = expectations.expected_gradient_norm2(widths, weights.variance, slope, d, d)
            rms |= {
                "gradient": float(np.sqrt(gradients.sum())),
                "hessian": float(np.sqrt(blocks.sum())),
                "hessian_diagonal_blocks": float(np.sqrt(np.trace(blocks))),
                "hessian_offdiagonal_blocks": float(np.sqrt(np.maximum(blocks.sum() - np.trace(blocks), 0.0))),
            }
    rms = {quantity: value for quantity, value in rms.items() if math.isfinite(value)}
    if weights.distribution != "normal":
        return rms, None
    log_median = gaussian_nets.vjp_median_log_norm2(L, d, weights.variance, slope) / 2 if L > 1 else 0.0
    median = {"vjp": math.exp(log_median)} if abs(log_median) < MODERATE else None
    return rms, median
