"""Exact averages and medians of the norms that `vanishing` measures, where closed forms give them."""

import math

import numpy as np

from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import law
from hessdiag.theory import expectations, gaussian_nets
from hessdiag.theory.rates import growth

MODERATE = 700.0  # logs beyond this leave float64


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
