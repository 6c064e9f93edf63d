"""Powers with which quantities grow, from networks of several sizes and seeds, each with its error."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hessdiag.questions.transfer.result import Held, Slope
from hessdiag.statistics import quantiles

Floats = NDArray[np.float64]


def slope(sizes: Sequence[int], values: Floats, tolerance: float, alike: int = 1) -> Slope:
    """The slope d log(value) / d log(size), each seed's line by itself: what seeds share over sizes is in the error.

    Args:
        sizes: Of the networks, (k,).
        values: (seeds, k), positive.
        tolerance: A slope up to this size is none.
        alike: How many such slopes are judged together: that one of them drifts is said with 95 % for all.

    Returns:
        Nothing where fewer than two sizes are there, or a value is not positive and finite.

    >>> found = slope([1, 2, 4], np.array([[1.0, 2.0, 4.0], [1.0, 2.2, 4.84]]), tolerance=0.2)
    >>> round(found.slope, 3), round(found.stderr, 3), found.held
    (1.069, 0.069, 'open')
    >>> slope([1, 2, 4], np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.1]]), tolerance=0.2).held
    'drifts'
    """
    if len(sizes) < 2 or not len(values) or not bool(np.all(np.isfinite(values) & (values > 0))):
        return Slope()
    x, y = np.log(np.array(sizes, dtype=float)), np.log(values)
    centred = x - x.mean()
    each = y @ centred / (centred @ centred)
    mean = float(each.mean())
    last = float((y[:, -1] - y[:, -2]).mean() / (x[-1] - x[-2]))
    if len(each) < 2:
        return Slope(slope=mean, last=last)
    stderr = float(each.std(ddof=1) / math.sqrt(len(each)))
    half, wide = (float(quantiles.student(1 - 0.025 / count, len(each) - 1)) * stderr for count in (1, alike))
    return Slope(
        slope=mean,
        stderr=stderr,
        low=mean - half,
        high=mean + half,
        last=last,
        held=_held(mean, half, wide, tolerance),
    )


def _held(mean: float, half: float, wide: float, tolerance: float) -> Held:
    """All must hold, so each interval may be its own; one that drifts is enough, so theirs are wider."""
    if abs(mean) + half <= tolerance:
        return "holds"
    return "drifts" if abs(mean) - wide > tolerance else "open"


def power(sizes: Sequence[int], values: Floats) -> float | None:
    """The slope alone, of numbers that are the same for all seeds or nearly so; `None` where there is none.

    >>> round(power([1, 10], np.array([[1.0, 0.1]])), 9)
    -1.0
    """
    return slope(sizes, values, 0.0).slope


def geometric(values: Floats) -> float | None:
    """The geometric mean of positive numbers; `None` where one is not positive and finite.

    >>> geometric(np.array([1.0, 4.0]))
    2.0
    """
    if not len(values) or not bool(np.all(np.isfinite(values) & (values > 0))):
        return None
    return float(np.exp(np.log(values).mean()))
