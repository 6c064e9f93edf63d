"""Sampling rows of a large matrix without replacement, in strata, and ratios of totals estimated from them.

Pure numpy: knows no model. Ratios in stratified samples follow Cochran, Sampling Techniques, chapters 5 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST_PER_STRATUM = 4
STRATA_PER_GROUP = 4


@dataclass(frozen=True)
class Stratum:
    """Rows that are alike: `size` of them, of which `drawn` (positions in the sample) were looked at."""

    size: int
    drawn: Indices


@dataclass(frozen=True)
class Ratio:
    """A ratio of two totals with its standard error and 95 % interval."""

    value: float
    stderr: float
    interval: tuple[float, float]


def strata_by_scale(groups: Sequence[Indices], scale: Floats) -> list[Indices]:
    """Split each group of rows by a rough guess of the rows' sizes, so that rows in one stratum are alike.

    Args:
        groups: Row numbers of each group (a layer's weights, a layer's biases).
        scale: A guess of every row's absolute sum, within a factor of a few. Rows guessed to be zero are left out.

    Returns:
        Row numbers of each stratum, at most `STRATA_PER_GROUP` a group, cut at equal shares of the cumulated square
        root of the scale (the rule of Dalenius and Hodges).

    >>> [s.tolist() for s in strata_by_scale([np.arange(32)], np.repeat([0.0, 1.0, 16.0], [8, 16, 8]))][-1]
    [28, 29, 30, 31]
    """
    strata = []
    for group in groups:
        alive = group[scale[group] > 0]
        if not len(alive):
            continue
        ordered = alive[np.argsort(scale[alive], kind="stable")]
        cumulated = np.cumsum(np.sqrt(scale[ordered]))
        pieces = max(1, min(STRATA_PER_GROUP, len(ordered) // (2 * LEAST_PER_STRATUM)))
        place = np.minimum((cumulated / cumulated[-1] * pieces - 1e-9).astype(int), pieces - 1)
        strata += [np.sort(ordered[place == piece]) for piece in range(pieces) if (place == piece).any()]
    return strata


def allocate(strata: Sequence[Indices], scale: Floats, rows: int) -> Indices:
    """How many rows to draw from each stratum: in proportion to its share of the scale, but at least a few.

    The total can exceed `rows` by what the smallest strata need.

    >>> allocate([np.arange(100), np.arange(100, 104)], np.ones(104), 50)
    array([48,  4])
    """
    sizes = np.array([len(stratum) for stratum in strata])
    weight = np.array([scale[stratum].sum() for stratum in strata])
    wanted = np.floor(rows * weight / weight.sum()).astype(np.int64)
    counts: Indices = np.minimum(sizes, np.maximum(wanted, LEAST_PER_STRATUM))
    return counts


def ratio(numerator: Floats, denominator: Floats, strata: Sequence[Stratum]) -> Ratio:
    """Estimate the ratio of two population totals, in [0, 1], from a stratified sample without replacement.

    Args:
        numerator: One value per sampled row, at most the denominator's.
        denominator: Likewise.
        strata: Which sampled rows stand for how many.

    Returns:
        The combined ratio estimate, its linearized standard error, and a 95 % interval: Student's t with
        Satterthwaite's degrees of freedom, on the logit scale, so that it stays within [0, 1].
        NaN where the denominator vanishes.
    """
    top = sum(s.size * numerator[s.drawn].mean() for s in strata)
    bottom = sum(s.size * denominator[s.drawn].mean() for s in strata)
    if not bottom > 0:
        return Ratio(float("nan"), float("nan"), (float("nan"), float("nan")))
    value = float(top / bottom)
    variance, spread = 0.0, 0.0
    for s in strata:
        n = len(s.drawn)
        if n == s.size:
            continue
        deviation = numerator[s.drawn] - value * denominator[s.drawn]
        part = s.size**2 * (1 - n / s.size) / n * float(deviation.var(ddof=1)) if n > 1 else float("inf")
        variance += part
        spread += part**2 / max(n - 1, 1)
    stderr = float(np.sqrt(variance) / bottom)
    if not 0 < value < 1 or stderr == 0 or not np.isfinite(stderr):
        return Ratio(value, stderr, (value, value) if stderr == 0 else (0.0, 1.0))
    reach = stats.t.ppf(0.975, max(variance**2 / spread, 1.0)) * stderr / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = (1 / (1 + np.exp(-(logit + side * reach))) for side in (-1, 1))
    return Ratio(value, stderr, (float(low), float(high)))


def total(values: Floats, strata: Sequence[Stratum]) -> float:
    """Estimate of a population total."""
    return float(totals(values, strata))


def totals(values: Floats, strata: Sequence[Stratum]) -> Floats:
    """Estimates of the totals of each column, shape (columns,), from values of shape (rows, columns)."""
    found: Floats = sum((s.size * values[s.drawn].mean(0) for s in strata), np.zeros(values.shape[1:]))
    return found


def exhaustive_order(groups: Sequence[Indices], rng: np.random.Generator) -> Indices:
    """All rows in an order whose every beginning is a stratified random sample: stopping early leaves an estimate."""
    keys = [np.maximum(np.arange(len(group)) - 1, 0) / len(group) for group in groups]
    shuffled = [rng.permutation(group) for group in groups]
    return np.concatenate(shuffled)[np.argsort(np.concatenate(keys), kind="stable")]
