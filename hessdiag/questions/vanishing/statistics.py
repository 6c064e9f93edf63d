"""Statistics of a norm over many random networks: heavy-tailed, so medians of logs come first."""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hessdiag.questions.common.ensembles.statistics import FEWEST_FOR_TAILS
from hessdiag.questions.vanishing.result import NormStatistics

SMALLEST_SQUARE = float(np.finfo(float).tiny / np.finfo(float).eps)  # a sum of squares below has lost digits or terms
MEDIAN_TO_MEAN_STDERR = math.sqrt(math.pi / 2)  # the median's standard error over the mean's, for a normal sample
NOTHING_LIVE = NormStatistics(
    median=math.nan,
    mean=0.0,
    rms=0.0,
    q05=None,
    q95=None,
    log_median=math.nan,
    log_median_stderr=math.nan,
    networks=0,
)


def norm_statistics(squared: ArrayLike, live: ArrayLike) -> NormStatistics:
    """Summarize squared norms, one per network.

    Args:
        squared: Squared norms, (networks,).
        live: Which networks are not dead. A live network's zero has underflowed, and counts as zero, as do values so
            small that squares have lost digits.

    >>> s = norm_statistics([4.0, 4.0, 4.0, 0.0], [True, True, True, False])
    >>> s.median, s.mean, round(s.rms, 9), s.networks
    (2.0, 1.5, 1.732050808, 3)
    """
    alive = np.asarray(live, dtype=bool)
    values = np.asarray(squared, dtype=float)[alive]
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(values < SMALLEST_SQUARE, 0.0, values)) / 2
    if not len(logs):
        return NOTHING_LIVE
    method: Literal["linear", "lower"] = (
        "linear" if np.isfinite(logs).all() else "lower"
    )  # no interpolation between minus infinities
    middle, low, high = (float(np.quantile(logs, q, method=method)) for q in (0.5, 0.05, 0.95))
    spread = float(logs.std(ddof=1)) if len(logs) > 1 and method == "linear" else math.nan
    norms = np.exp(logs)
    with np.errstate(over="ignore"):
        mean, rms = float(norms.sum()) / alive.size, math.sqrt(float(np.sum(norms**2)) / alive.size)
    q05, q95 = (None if len(logs) < FEWEST_FOR_TAILS else math.exp(end) for end in (low, high))
    return NormStatistics(
        median=math.exp(middle),
        mean=mean,
        rms=rms,
        q05=q05,
        q95=q95,
        log_median=middle,
        log_median_stderr=MEDIAN_TO_MEAN_STDERR * spread / math.sqrt(len(logs)),
        networks=len(logs),
    )
