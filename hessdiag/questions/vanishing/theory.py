"""Exact averages and medians of the norms that `vanishing` measures, where closed forms give them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import law
from hessdiag.theory import expectations, gaussian_nets
from hessdiag.theory.rates import growth

Floats = NDArray[np.float64]
Values = dict[str, float]  # by quantity

MODERATE = 700.0  # logs beyond this leave float64


@dataclass(frozen=True)
class Exact:
    """What closed forms say of the networks of one depth; `None` where there are none.

    Attributes:
        rms: Root mean squares. Those of gradient and Hessian are known for one sample and Gaussian weights; those of
            vector-Jacobian products for any symmetric law.
        medians: Those of vector-Jacobian products are known for Gaussian weights.
        layers: Root mean squares of each layer's gradient and diagonal Hessian block.
        trace: Mean of the Hessian's trace, for any symmetric law of the weights.
    """

    rms: Values | None = None
    medians: Values | None = None
    layers: list[Values] | None = None
    trace: float | None = None


def exact(ensemble: Ensemble, name: str) -> Exact:
    """What is known of networks with an activation of that name."""
    L, d, slope = ensemble.depth, ensemble.width, activation(name).slope
    weights = law(ensemble.init, d, d, ensemble.distribution)
    if slope is None or weights is None:
        return Exact()
    widths, gaussian = [d] * (L + 1), weights.distribution == "normal"
    norm2 = d  # |x|^2, and |y|^2
    gradients = blocks = None
    with np.errstate(all="ignore"):  # what leaves float64 is left out below
        rms = {"vjp": float(np.exp((L - 1) * growth(d, weights.variance, slope).rms))}
        if gaussian and ensemble.batch == 1:
            gradients = expectations.expected_gradient_norm2(widths, weights.variance, slope, norm2, norm2)
            blocks = expectations.expected_block_norm2(widths, weights.variance, slope, norm2, norm2)
            rms |= _of_whole(gradients, blocks)
        trace = expectations.expected_trace(widths, weights.variance, slope, norm2)
    return Exact(
        rms={quantity: value for quantity, value in rms.items() if math.isfinite(value)},
        medians=_medians(L, d, weights.variance, slope) if gaussian else None,
        layers=None if gradients is None or blocks is None else _of_layers(gradients, blocks),
        trace=trace if math.isfinite(trace) else None,
    )


def _of_whole(gradients: Floats, blocks: Floats) -> Values:
    """Root mean squares, from expected squares of the layers' gradients, (L,), and of the blocks of H, (L, L)."""
    own = np.trace(blocks)
    return {
        "gradient": float(np.sqrt(gradients.sum())),
        "hessian": float(np.sqrt(blocks.sum())),
        "hessian_diagonal_blocks": float(np.sqrt(own)),
        "hessian_offdiagonal_blocks": float(np.sqrt(np.maximum(blocks.sum() - own, 0.0))),
    }


def _of_layers(gradients: Floats, blocks: Floats) -> list[Values] | None:
    """The same of each layer; `None` where one is beyond float64."""
    if not all(bool(np.isfinite(part).all()) for part in (gradients, blocks)):
        return None
    pairs = zip(np.sqrt(gradients).tolist(), np.sqrt(np.diagonal(blocks)).tolist(), strict=True)
    return [{"gradient": gradient, "hessian_block": block} for gradient, block in pairs]


def _medians(depth: int, width: int, variance: float, slope: float) -> Values | None:
    """`None` where they leave float64."""
    log = gaussian_nets.vjp_median_log_norm2(depth, width, variance, slope) / 2 if depth > 1 else 0.0
    return {"vjp": math.exp(log)} if abs(log) < MODERATE else None
