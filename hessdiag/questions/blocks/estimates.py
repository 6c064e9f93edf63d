"""From samples of squared block norms to norms, traces and shares, with their standard errors and intervals."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessdiag.questions.common.block_squares import Squares
from hessdiag.statistics import intervals, quantiles
from hessdiag.statistics.intervals import Average, Z

Floats = NDArray[np.float64]


def mean_variance(samples: Floats) -> Floats:
    """Variance of the mean over the first axis; zero for a single sample, which is exact.

    Few samples know their own spread badly: widened as Student's t is, so that 1.96 standard errors cover 95 %.
    """
    count = len(samples)
    if count == 1:
        return np.zeros(samples.shape[1:])
    widening = float(quantiles.student(0.975, count - 1)) / Z
    found: Floats = widening**2 * samples.var(0, ddof=1) / count
    return found


def root(square: Any, variance: Any) -> Average:
    """The root of an estimated square, its standard error by the delta method, and its interval by chi-square."""
    square, variance = np.asarray(square), np.asarray(variance)
    value = np.sqrt(square)
    error = np.divide(np.sqrt(variance), 2 * value, out=np.zeros_like(value), where=value > 0)
    low, high = intervals.chi_square(square, variance)
    return Average(value, error, np.sqrt(low), np.sqrt(high))


def norms(samples: Floats, own_variance: Floats | None) -> Average:
    """A symmetric matrix of norms from samples (samples, L, L) of its squares: each pair is seen from both sides.

    What one sample of a layer's own square varies by, (L,), is known from pairs of samples, too: the larger one counts.
    """
    square, variance = samples.mean(0), mean_variance(samples)
    both = (variance + variance.T) / 4
    within = variance.diagonal()
    if own_variance is not None:
        within = np.maximum(within, own_variance / len(samples))
    np.fill_diagonal(both, within)
    return root((square + square.T) / 2, both)


def traces(squares: Squares) -> Average:
    """Traces of the layers' blocks; their variance is the larger of what samples show and what pairs of them tell.

    Where all samples of a layer have one sign, as of a semidefinite block, they are taken for sums of squares: skewed,
    with an interval by chi-square.
    """
    found = squares.traces
    value, variance = found.mean(0), mean_variance(found)
    known = np.zeros_like(value) if squares.trace_variances is None else squares.trace_variances / len(found)
    error = np.sqrt(np.maximum(variance, known))
    low, high = value - Z * error, value + Z * error
    if len(found) > 1:
        plain = np.maximum(found.var(0, ddof=1) / len(found), known)
        one_sign = (np.sign(found) == np.sign(found[0])).all(0) & (value != 0)
        near, far = intervals.chi_square(np.abs(value), plain)
        negative = value < 0
        low = np.where(one_sign, np.where(negative, -far, near), low)
        high = np.where(one_sign, np.where(negative, -near, far), high)
    return Average(value, error, low, high)


def share(part: Floats, whole: Floats) -> tuple[float, float]:
    """A ratio of totals over layers, from samples (samples, L), with its linearized standard error."""
    bottom = float(whole.mean(0).sum())
    if not bottom > 0:
        return math.nan, math.nan
    value = float(part.mean(0).sum()) / bottom
    return value, math.sqrt(float(mean_variance(part - value * whole).sum())) / bottom
