"""The exact median, averages and dead networks of forward norms, where closed forms hold."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hessdiag.nets.activations import activation
from hessdiag.nets.initializers import Distribution, law
from hessdiag.theory.gaussian_nets import dead_probability, gate_moments, median_log_norms2, moments

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExactLayers:
    """Exact values of `r = norm(h_l) / norm(x)` in every layer, each (depth,); `None` where no closed form holds.

    Attributes:
        log_medians: Natural logs of the medians.
        log_rms: Natural logs of the root mean squares.
        kurtosis: `E r^4 / (E r^2)^2`.
        dead: Probability that r is zero.
    """

    log_medians: Floats | None = None
    log_rms: Floats | None = None
    kurtosis: Floats | None = None
    dead: Floats | None = None


NOTHING_EXACT = ExactLayers()


def exact_layers(init: str, name: str, depth: int, width: int, distribution: Distribution | None = None) -> ExactLayers:
    """All that is known in closed form of the built-in networks."""
    setting = (init, name, depth, width, distribution)
    return ExactLayers(
        exact_log_medians(*setting), exact_log_rms(*setting), exact_kurtosis(*setting), exact_dead(*setting)
    )


@lru_cache(maxsize=16)
def unit_log_medians(depth: int, width: int, slope: float) -> tuple[float, ...]:
    """Logs of the medians of `norm(h_l) / norm(x)` at variance 1 / width; any other variance only shifts them."""
    return tuple((median_log_norms2(depth, width, 1 / width, slope) / 2).tolist())


def exact_log_medians(
    init: str, name: str, depth: int, width: int, distribution: Distribution | None = None
) -> Floats | None:
    """Natural logs of the exact medians of `norm(h_l) / norm(x)`, (depth,), over live networks.

    All layers have the activation, the last one too. The law is that of products of independent chi-squares
    (`hessdiag.theory.gaussian_nets`); `None` unless weights are Gaussian and the activation is linear or (leaky) ReLU.

    >>> round(2 * float(exact_log_medians("he_normal", "relu", 16, 8)[-1]), 5)
    -6.03266
    """
    slope, weights = activation(name).slope, law(init, width, width, distribution)
    if slope is None or weights is None or weights.distribution != "normal":
        return None
    shift = 0.5 * math.log(width * weights.variance)
    unit: Floats = np.array(unit_log_medians(depth, width, slope))
    return unit + shift * np.arange(1.0, depth + 1)


def exact_log_rms(
    init: str, name: str, depth: int, width: int, distribution: Distribution | None = None
) -> Floats | None:
    """Natural logs of the exact root mean squares, (depth,), dead networks counted as zero.

    They are `(p d sigma^2)^(l/2)` for independent weights of any symmetric law (Vanishing Curvature, Assumption 1);
    `None` for dependent weights and for curved activations.

    >>> exact_log_rms("he_uniform", "relu", 3, 8).tolist()
    [0.0, 0.0, 0.0]
    """
    slope, weights = activation(name).slope, law(init, width, width, distribution)
    if slope is None or weights is None:
        return None
    growth = 0.5 * math.log(gate_moments(slope)[0] * width * weights.variance)
    layers: Floats = np.arange(1.0, depth + 1)
    return growth * layers


def exact_kurtosis(
    init: str, name: str, depth: int, width: int, distribution: Distribution | None = None
) -> Floats | None:
    """Exact `E r^4 / (E r^2)^2` of `r = norm(h_l) / norm(x)`, (depth,), for inputs that are uniform on the sphere.

    From the coupled recursion of second and fourth moments, for independent weights of any symmetric law; `None` for
    dependent weights and for curved activations. The scale of the weights drops out.

    >>> exact_kurtosis("he_normal", "linear", 2, 8).round(6).tolist()
    [1.25, 1.5625]
    """
    slope, weights = activation(name).slope, law(init, width, width, distribution)
    if slope is None or weights is None:
        return None
    critical = 1 / (gate_moments(slope)[0] * width)
    with np.errstate(over="ignore", invalid="ignore"):
        found: Floats = moments([width] * depth, critical, weights.kurtosis, slope, (1, 1, 3 / (width + 2))).norm4[1:]
    return found


def exact_dead(init: str, name: str, depth: int, width: int, distribution: Distribution | None = None) -> Floats | None:
    """Exact probabilities that a network is dead behind 1 .. depth layers, (depth,).

    A ReLU layer is off as a whole with probability `2^-width`, for independent weights of any symmetric law; `None` for
    dependent weights and for curved activations.

    >>> exact_dead("he_uniform", "relu", 2, 2).round(9).tolist()
    [0.25, 0.4375]
    """
    slope, weights = activation(name).slope, law(init, width, width, distribution)
    if slope is None or weights is None:
        return None
    log_alive = math.log1p(-dead_probability([width], slope))
    found: Floats = -np.expm1(log_alive * np.arange(1.0, depth + 1)) + 0.0  # not -0
    return found
