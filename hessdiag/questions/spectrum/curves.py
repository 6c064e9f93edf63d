"""A density in the numbers of a result: NaN, which stands for "there is none", becomes `None`."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessdiag.fields import Numbers
from hessdiag.linalg import densities
from hessdiag.linalg.densities import Density
from hessdiag.questions.spectrum.result import Curve, Ends, LogCurve, Moment
from hessdiag.statistics.intervals import Average, Estimated, EstimatedNumber

NEAR_ZERO = 0.01  # of the norm: what is called near zero

UNMEASURED: EstimatedNumber = Estimated(None)


def estimated(average: Average, index: int | tuple[()] = ()) -> EstimatedNumber:
    """A mean, or one of several."""
    low, high = float(average.low[index]), float(average.high[index])
    interval = None if math.isnan(low) else (low, high)
    return Estimated(float(average.value[index]), _number(average.stderr[index]), interval)


def curve(density: Density) -> Curve:
    """The smoothed density over its own grid."""
    grid = density.grid()
    heights = density.density(grid)
    return Curve(
        grid=tuple(grid.tolist()),
        values=tuple(heights.value.tolist()),
        stderr=None if density.exact else tuple(heights.stderr.tolist()),
        interval=None if density.exact else _ends(heights),
        width=density.width,
        one_eigenvalue=_one(density) / density.width,
    )


def log_curve(density: Density) -> LogCurve:
    """The densities over decades, of each sign."""
    grid = density.log_grid()
    decades = density.log_density(grid)
    up, down, exact = decades.positive, decades.negative, density.exact
    return LogCurve(
        grid=tuple(grid.tolist()),
        positive=_plain(up.value),
        positive_stderr=None if exact else _plain(up.stderr),
        positive_interval=None if exact else _ends(up),
        negative=_plain(down.value),
        negative_stderr=None if exact else _plain(down.stderr),
        negative_interval=None if exact else _ends(down),
        width=densities.LOG_WIDTH,
        one_eigenvalue=_one(density) / densities.LOG_WIDTH,
        unresolved_below=decades.unresolved_below or None,
        unresolved_share=decades.unresolved_share if decades.unresolved_below else None,
    )


def moments(density: Density) -> tuple[Moment, ...]:
    """Averages of powers of the eigenvalues."""
    averages = density.moments()
    found = []
    for index in range(densities.MOMENTS):
        one = estimated(averages, index)
        found.append(Moment(index + 1, float(averages.value[index]), one.stderr, one.interval))
    return tuple(found)


def near_zero(density: Density) -> EstimatedNumber:
    """Share of the eigenvalues of small magnitude."""
    edge = NEAR_ZERO * density.scale
    return estimated(density.share(-edge, edge))


def _one(density: Density) -> float:
    """Height of a single eigenvalue's bump, for each unit of width."""
    return 1 / (density.n * math.sqrt(2 * math.pi))


def _ends(average: Average) -> Ends:
    return _plain(average.low), _plain(average.high)


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(values: NDArray[np.float64]) -> Numbers:
    return tuple(_number(value) for value in values)
