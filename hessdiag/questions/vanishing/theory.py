"""Exact averages and medians of the norms that `vanishing` measures, where closed forms give them."""

import math

import numpy as np
from numpy.typing import NDArray

from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import WeightLaw, law
from hessdiag.theory import expectations, gaussian_nets
from hessdiag.theory.rates import growth

Floats = NDArray[np.float64]

MODERATE = 700.0  # logs beyond this leave float64


def exact_values(ensemble: Ensemble, name: str) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    """Exact root mean squares and medians at one depth, by quantity; `None` where there are none.

    Root mean squares of gradient and Hessian are known for one sample and Gaussian weights; those of vector-Jacobian
    products for any symmetric law. Medians of vector-Jacobian products are known for Gaussian weights.
    """
    L, d, (slope, weights) = ensemble.depth, ensemble.width, _setting(ensemble, name)
    if slope is None or weights is None:
        return None, None
    with np.errstate(all="ignore"):  # what leaves float64 is left out below
        rms = {"vjp": float(np.exp((L - 1) * growth(d, weights.variance, slope).rms))}
        expected = _expected_squares(ensemble, name)
        if expected is not None:
            gradients, blocks = expected
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


def exact_layers(ensemble: Ensemble, name: str) -> list[dict[str, float]] | None:
    """Exact root mean squares of each layer's gradient and diagonal Hessian block; `None` where there are none."""
    with np.errstate(all="ignore"):
        expected = _expected_squares(ensemble, name)
        if expected is None or not all(bool(np.isfinite(part).all()) for part in expected):
            return None
        gradients, blocks = np.sqrt(expected[0]), np.sqrt(np.diagonal(expected[1]))
    return [
        {"gradient": float(gradient), "hessian_block": float(block)}
        for gradient, block in zip(gradients, blocks, strict=True)
    ]


def exact_trace(ensemble: Ensemble, name: str) -> float | None:
    """Exact mean of the Hessian's trace, for any symmetric law of the weights; `None` where there is none."""
    slope, weights = _setting(ensemble, name)
    if slope is None or weights is None:
        return None
    d = ensemble.width  # and so is |x|^2
    with np.errstate(all="ignore"):
        trace = expectations.expected_trace([d] * (ensemble.depth + 1), weights.variance, slope, d)
    return trace if math.isfinite(trace) else None


def _setting(ensemble: Ensemble, name: str) -> tuple[float | None, WeightLaw | None]:
    """The slope of an activation below zero, and the law of the weights; `None` of what has none."""
    return activation(name).slope, law(ensemble.init, ensemble.width, ensemble.width, ensemble.distribution)


def _expected_squares(ensemble: Ensemble, name: str) -> tuple[Floats, Floats] | None:
    """Expected squared norms of each layer's gradient, (L,), and of each block of the Hessian, (L, L)."""
    slope, weights = _setting(ensemble, name)
    if slope is None or weights is None or weights.distribution != "normal" or ensemble.batch != 1:
        return None
    d, widths = ensemble.width, [ensemble.width] * (ensemble.depth + 1)
    gradients = expectations.expected_gradient_norm2(widths, weights.variance, slope, d, d)
    return gradients, expectations.expected_block_norm2(widths, weights.variance, slope, d, d)
