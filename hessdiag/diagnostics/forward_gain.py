"""The factor of the weights at which a typical network, or the average, keeps the norm of its input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hessdiag.diagnostics.forward_norms import Floats, RatioStatistics, ratio_statistics
from hessdiag.errors import ComputeError
from hessdiag.nets.initializers import WeightLaw
from hessdiag.theory.gaussian_nets import gate_moments, median_stabilizing_variance

Target = Literal["median", "rms"]
Simulate = Callable[[list[float], int], Floats]
"""Gains, and how many networks, to logs of the last layer's ratio, (gains, networks)."""

WIDEST = (0.1, 10.0)  # gains between which one is searched, at variance 1 / width
GRID = 16  # gains on the same weights in one pass of the search
FIRST_SHARE = 8  # the first, coarse pass takes this fraction of the networks
FEWEST = 50


@dataclass(frozen=True)
class Gain:
    """A factor of the weights, relative to variance 1 / width.

    Attributes:
        value: The factor.
        log_stderr: Standard error of its logarithm; 0 for a closed form.
        ratio_log_stderr: What that means for the log of the ratio at the last layer.
        method: "exact", "scaling" (one measurement, as the ratio goes with the gain's power) or "bisection".
    """

    value: float
    log_stderr: float
    ratio_log_stderr: float
    method: Literal["exact", "scaling", "bisection"]


def log_statistic(ratio: RatioStatistics, target: Target) -> tuple[float, float]:
    """The log of the median or of the root mean square, and its standard error."""
    if target == "median":
        return ratio.log_median, ratio.log_median_stderr
    if not 0 < ratio.rms < math.inf:
        return (-math.inf if ratio.rms == 0 else math.inf), math.nan
    return math.log(ratio.rms), ratio.rms_stderr / ratio.rms


def closed_form(
    target: Target, weights: WeightLaw | None, slope: float | None, width: int | None, depth: int | None
) -> float | None:
    """The exact `p d sigma^2` that keeps the target over so many layers (`None`: in the limit), where one is known.

    It is 1 for the root mean square under any symmetric law, and `median_stabilizing_variance` for the median of
    Gaussian networks.

    >>> round(closed_form("median", WeightLaw("normal", 2 / 32), 0.0, 32, 128), 5)
    1.08571
    """
    if weights is None or slope is None or width is None:
        return None
    if target == "rms":
        return 1.0
    return median_stabilizing_variance(width, slope, depth) if weights.distribution == "normal" else None


def solve_gain(
    target: Target,
    weights: WeightLaw | None,
    slope: float | None,
    *,
    width: int | None,
    depth: int,
    seeds: int,
    simulate: Simulate,
) -> Gain:
    """The gain at which the median (root mean square) of norm(h_depth) / norm(x) is 1.

    A closed form where there is one. For piecewise linear activations the ratio goes with the gain's power `depth`, so
    that one measurement at gain 1 is enough. Without a slope, a search on common random numbers: ever finer grids of
    gains on the same weights, linear interpolation at the end.

    Raises:
        ComputeError: if no gain does it: a bounded activation cannot keep a long input.
    """
    exact = closed_form(target, weights, slope, width, depth)
    if exact is not None:
        assert slope is not None
        return Gain(math.sqrt(exact / gate_moments(slope)[0]), 0.0, 0.0, "exact")
    if slope is not None:
        log, stderr = log_statistic(ratio_statistics(simulate([1.0], seeds)[0]), target)
        if not math.isfinite(log):
            raise ComputeError(f"no gain keeps the {target}: all networks are dead.", "a wider layer, or leaky ReLU")
        return Gain(math.exp(-log / depth), stderr / depth, stderr, "scaling")
    low, high = WIDEST
    for count in (max(FEWEST, seeds // FIRST_SHARE), seeds, seeds):
        grid = np.geomspace(low, high, GRID)
        statistics = [log_statistic(ratio_statistics(logs), target) for logs in simulate(grid.tolist(), count)]
        values = np.array([log for log, _ in statistics])
        above = np.flatnonzero(values[1:] >= 0)
        if not len(above) or not values[0] < 0:
            most = math.exp(float(np.nanmax(values))) if np.isfinite(values).any() else 0.0
            raise ComputeError(
                f"no gain makes the {target} of the ratio 1 after {depth} layers: "
                f"between {low:.3g} and {high:.3g} it reaches {most:.3g}.",
                "more width, or more seeds",
            )
        step, cell = math.log(grid[1] / grid[0]), int(above[0])
        coarse = count < seeds
        low, high = (float(grid[cell] * math.exp(-coarse * step)), float(grid[cell + 1] * math.exp(coarse * step)))
    rise = float(values[cell + 1] - values[cell])
    share = -float(values[cell]) / rise
    stderr = (1 - share) * statistics[cell][1] + share * statistics[cell + 1][1]
    return Gain(float(grid[cell]) * math.exp(share * step), stderr * step / rise, stderr, "bisection")
