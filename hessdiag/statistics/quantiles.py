"""Quantiles of Student's t and of chi-square: scipy.special has them, and scipy.stats takes 0.4 s to import."""

import math
from typing import Any

from scipy import special

MANY = 1e6  # degrees of freedom of what is normal


def student(level: float, freedom: Any) -> Any:
    """The value that a t variable stays below with this probability.

    >>> round(float(student(0.975, 2)), 6)
    4.302653
    """
    return special.stdtrit(freedom, level)


def chi_square(level: float, freedom: Any) -> Any:
    """The value that a chi-square variable stays below with this probability.

    >>> round(float(chi_square(0.95, 1)), 6)
    3.841459
    """
    return 2 * special.gammaincinv(0.5 * freedom, level)


def two_sided(z: float, freedom: float = math.inf) -> float:
    """How likely a t variable, or a normal one, is at least so far from zero.

    >>> round(two_sided(1.959964), 6), round(two_sided(4.302653, 2), 6)
    (0.05, 0.05)
    """
    if math.isinf(freedom):
        return math.erfc(abs(z) / math.sqrt(2))
    return 2 * float(special.stdtr(freedom, -abs(z)))


def freedom_of(reach: float) -> float:
    """Degrees of freedom of the t variable that is within this reach in 95 of 100 cases; infinite of a normal one.

    >>> round(freedom_of(4.302653), 4), freedom_of(1.95)
    (2.0, inf)
    """
    found = float(special.stdtridf(0.975, reach)) if reach > 1.96 else math.inf
    return max(found, 1.0) if found < MANY else math.inf
