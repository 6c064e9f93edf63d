"""The factor of the weights at which a typical network, or the average, keeps the norm of its input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from hessdiag.errors import ComputeError
from hessdiag.nets.initializers import WeightLaw
from hessdiag.numbers import counted, of_log
from hessdiag.questions.forward.norms import Floats, ratio_statistics
from hessdiag.questions.forward.result import RatioStatistics, Target
from hessdiag.theory.gaussian_nets import gate_moments, median_stabilizing_variance

Simulate = Callable[[list[float], int], Floats]
"""Gains, and how many networks, to logs of the last layer's ratio, (gains, networks)."""

WIDEST = math.log(10.0)  # a gain is searched within a factor of this around variance 1 / width
COARSE, FINE = 16, 12  # gains on the same weights in one pass: over some networks, and over all of them
FIRST_SHARE = 8  # the coarse passes take this fraction of the networks
FEWEST = 50
SETTLED = 0.5  # of a standard error: how far two interpolations may disagree
ROUNDING = 1e-9
BEYOND = 745.0  # log of the smallest number of float64: what stands for a signal that is lost, or infinite


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

    @property
    def factors(self) -> list[float]:
        """One for all layers."""
        return [self.value]


def log_statistic(ratio: RatioStatistics, target: Target) -> tuple[float, float]:
    """The log of the median or of the root mean square, and its standard error.

    That of a root mean square is an underestimate where few networks carry it.
    """
    if target == "median":
        return ratio.log_median, ratio.log_median_stderr
    if not 0 < ratio.rms < math.inf:
        return (-math.inf if ratio.rms == 0 else math.inf), math.nan
    count = ratio.carriers * ratio.kurtosis
    stderr = math.sqrt(max(ratio.kurtosis - 1, 0.0) / count) / 2 if count > 1 else math.nan
    return math.log(ratio.rms), stderr


def closed_form(
    target: Target, weights: WeightLaw | None, slope: float | None, width: int, depth: int | None
) -> float | None:
    """The exact `p d sigma^2` that keeps the target over so many layers (`None`: in the limit), where one is known.

    It is 1 for the root mean square under any symmetric law, and `median_stabilizing_variance` for the median of
    Gaussian networks.

    >>> round(closed_form("median", WeightLaw("normal", 2 / 32), 0.0, 32, 128), 5)
    1.08571
    """
    if weights is None or slope is None:
        return None
    if target == "rms":
        return 1.0
    return median_stabilizing_variance(width, slope, depth) if weights.distribution == "normal" else None


def exact_gain(target: Target, weights: WeightLaw | None, slope: float | None, width: int, depth: int) -> Gain | None:
    """The gain at which the median (root mean square) of norm(h_depth) / norm(x) is 1, where a closed form holds."""
    exact = closed_form(target, weights, slope, width, depth)
    if exact is None or slope is None:
        return None
    return Gain(math.sqrt(exact / gate_moments(slope)[0]), 0.0, 0.0, "exact")


def scaled_gain(target: Target, logs: Floats, depth: int) -> Gain:
    """The same from one measurement at gain 1: without curvature the ratio goes with the gain's power `depth`.

    Args:
        target: What is to be 1.
        logs: Of the last layer's ratio, (networks,).
        depth: Layers.

    Raises:
        ComputeError: if all networks are dead.
    """
    log, stderr = log_statistic(ratio_statistics(logs), target)
    if not math.isfinite(log):
        raise ComputeError(f"no gain keeps the {target}: all networks are dead.", "a wider layer, or leaky ReLU")
    return Gain(math.exp(-log / depth), stderr / depth, stderr, "scaling")


def search_gain(target: Target, *, depth: int, seeds: int, simulate: Simulate) -> Gain:
    """The same for any activation, by a search on common random numbers.

    It goes over some of the networks first, then over all of them, as near as the error of the first.

    Raises:
        ComputeError: if no gain does it: a bounded activation cannot keep a long input.
    """
    few = min(seeds, max(FEWEST, seeds // FIRST_SHARE))
    rough = _search(target, depth, 0.0, WIDEST, COARSE, lambda gains: simulate(gains, few))
    reach = 5 * rough.log_stderr
    return _search(target, depth, math.log(rough.value), reach, FINE, lambda gains: simulate(gains, seeds))


def _search(
    target: Target, depth: int, centre: float, reach: float, nodes: int, simulate: Callable[[list[float]], Floats]
) -> Gain:
    """The gain at which a log statistic of the same networks is 0, on ever narrower grids of its logarithm.

    Between nodes runs a monotone cubic (Fritsch and Carlson, 1980). It ends once that crosses 0 where a straight line
    does, to a fraction of the standard error.
    """
    while True:
        grid = centre + reach * np.linspace(-1, 1, nodes)
        step = float(grid[1] - grid[0])
        measured = [log_statistic(ratio_statistics(logs), target) for logs in simulate(np.exp(grid).tolist())]
        values = np.nan_to_num([log for log, _ in measured], nan=-BEYOND, neginf=-BEYOND, posinf=BEYOND)
        errors = np.nan_to_num([stderr for _, stderr in measured])
        above = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
        if len(above):
            low, high = above[0], above[0] + 1
            slope = float(values[high] - values[low]) / step
            straight = float(grid[low] - values[low] / slope)
            root = float(brentq(PchipInterpolator(grid, values), grid[low], grid[high], xtol=1e-14))
            stderr = float(np.interp(root, grid, errors))
            if abs(root - straight) <= max(SETTLED * stderr / slope, ROUNDING):
                return Gain(math.exp(root), stderr / slope, stderr, "bisection")
            centre, reach = root, step
        elif reach < WIDEST:
            reach = min(4 * reach, WIDEST)
        else:
            raise ComputeError(
                f"no gain makes the {target} of the ratio 1 after {counted(depth, 'layer')}: between "
                f"{of_log(grid[0])} and {of_log(grid[-1])} it reaches {of_log(min(max(values), BEYOND - 36))}.",
                "more width, or more seeds",
            )
