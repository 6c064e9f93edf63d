"""Quantiles of a law from its characteristic function, by quadrature.

Gil-Pelaez ("Note on the inversion theorem", Biometrika 1951): where phi is the characteristic function, the cumulative
distribution at x is `1/2 - (1/pi) int_0^inf Im(e^{-itx} phi(t)) / t dt`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]

PANELS, ORDER = 64, 16  # Gauss-Legendre panels of the integral, and nodes in each


def panels(end: float) -> tuple[Array, Array]:
    """Frequencies and weights of composite Gauss-Legendre quadrature on [0, end]."""
    node, weight = np.polynomial.legendre.leggauss(ORDER)
    half = end / (2 * PANELS)
    centres = half * (2 * np.arange(PANELS) + 1)
    return np.add.outer(centres, half * node).ravel(), np.tile(half * weight, PANELS)


def quantile(
    characteristic: NDArray[np.complex128], t: Array, step: Array, q: float, guess: float, reach: float
) -> float:
    """The q-quantile of a law.

    Args:
        characteristic: Its characteristic function at t.
        t: Frequencies of `panels`, up to where that is negligible.
        step: Their weights.
        q: Probability.
        guess: What the quantile is near to.
        reach: How far from there the search begins.

    >>> t, step = panels(9.0)
    >>> round(quantile(np.exp(-(t**2) / 2) + 0j, t, step, 0.975, guess=0.0, reach=4.0), 6)  # of a normal variable
    1.959964
    """

    def excess(x: float) -> float:
        """How far the distribution function at x lies above q."""
        integrand = (characteristic * np.exp(-1j * t * x)).imag / t
        return 0.5 - float(step @ integrand) / math.pi - q

    low = high = reach
    while excess(guess - low) > 0:
        low *= 2
    while excess(guess + high) < 0:
        high *= 2
    return float(brentq(excess, guess - low, guess + high, xtol=1e-13))
