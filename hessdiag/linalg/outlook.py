"""How many products an iteration for extreme eigenpairs still takes, from how its residuals fall."""

import math
from dataclasses import dataclass

import numpy as np

from hessdiag.machine.work import Work

WINDOWS = (0.5, 0.75)  # of the products so far: where the stretches begin that a rate is taken from
FEWEST = 4  # looks in a stretch
FAR = 0.5  # of the products so far: what lies farther ahead than that, no rate has ever told


@dataclass(frozen=True)
class Outlook:
    """What is known of the way that is left.

    Attributes:
        passed: Vectors that arithmetic has read or written so far, beside products.
        ahead: The shortest and the longest way that is left, if residuals fall on as of late; `None` where they do not
            fall steadily, or the end is too far.
        least: What is left in any case: true residuals.
        limit: The way to where the iteration gives up.
    """

    passed: float
    ahead: tuple[Work, Work] | None
    least: Work
    limit: Work


def ahead(looks: list[tuple[int, float]]) -> tuple[float, float] | None:
    """The fewest and the most products left until the worst residual is small enough.

    Straight lines through the logarithms of the second half of all looks, and of the last quarter. Early rates say
    nothing: pairs far from converged all seem to need about as much again.

    Args:
        looks: Products so far, and the logarithm of the worst residual over what is allowed, in order.

    >>> ahead([(products, 5.0 - products / 20) for products in range(0, 90, 5)])
    (15.0, 15.0)
    >>> ahead([(products, 5.0) for products in range(0, 90, 5)])
    """
    products, now = looks[-1]
    found = []
    for window in WINDOWS:
        some = np.array([look for look in looks if look[0] >= window * products])
        if len(some) < FEWEST or some[0, 0] == products:
            return None
        slope = float(np.polyfit(some[:, 0] - products, some[:, 1], 1)[0])
        if not slope < 0:
            return None
        found.append(max(now, 0.0) / -slope)
    if not max(found) <= FAR * products or not math.isfinite(max(found)):
        return None
    return round(min(found), 3), round(max(found), 3)
