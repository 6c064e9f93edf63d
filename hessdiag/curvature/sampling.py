"""Sampling rows of a large matrix without replacement, in strata, and ratios of totals estimated from them.

Pure numpy: knows no model. Ratios in stratified samples follow Cochran, Sampling Techniques, chapters 5 and 6.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessdiag.linalg import quantiles

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST_PER_STRATUM = 4
STRATA_PER_GROUP = 32
BEGINNING = 8  # rows of each group of a list that is taken in order, before any has more
LEAST_EFFECTIVE = 2.0  # rows that carry the mass, below which nothing is known of their spread


@dataclass(frozen=True)
class Stratum:
    """Rows that are alike: `size` of them, of which `drawn` (positions in the sample) were looked at, or none yet.

    Where they are not `sorted` by a guess of what each holds, a few that hold most may be among those not drawn.
    """

    size: int
    drawn: Indices
    sorted: bool = True


@dataclass(frozen=True)
class Ratio:
    """A ratio of two totals with its standard error and 95 % interval; all NaN where the denominator vanishes."""

    value: float
    stderr: float
    interval: tuple[float, float]


def joined_groups(groups: Sequence[Indices], owners: Sequence[int], scale: Floats, rows: int) -> list[list[int]]:
    """Which groups of rows to take together, so that each has a few rows of a sample.

    First those of one owner are joined, then neighbours whose rows hold least, but the last owner's only at the end:
    the diagonal of a network's last layer is unlike all others. Groups of rows guessed to be zero are left out.

    Args:
        groups: Row numbers of each group (a layer's weights, a layer's biases).
        owners: The layer of each.
        scale: A guess of every row's absolute sum, within a factor of a few.
        rows: How many are going to be drawn.

    Returns:
        Numbers of the groups that are one from now on.

    >>> groups = [np.arange(10), np.arange(10, 20), np.arange(20, 30), np.arange(30, 40)]
    >>> joined_groups(groups, [0, 1, 1, 2], np.ones(40), 12), joined_groups(groups, [0, 1, 1, 2], np.ones(40), 8)
    ([[0], [1, 2], [3]], [[0, 1, 2], [3]])
    """
    masses = [float(scale[group].sum()) for group in groups]
    found = [[index] for index, mass in enumerate(masses) if mass > 0]
    held = [mass for mass in masses if mass > 0]
    while len(found) > max(1, rows // LEAST_PER_STRATUM):
        together = np.add(held[:-1], held[1:])
        ends = [(owners[before[-1]], owners[after[0]]) for before, after in itertools.pairwise(found)]
        last = owners[found[-1][0]]
        # Ranks that no sum of masses outweighs.
        rank = [0 if one == other else 2 if last in (one, other) else 1 for one, other in ends]
        place = int(np.lexsort((together, np.array(rank)))[0])
        found[place : place + 2] = [found[place] + found[place + 1]]
        held[place : place + 2] = [held[place] + held[place + 1]]
    return found


def strata_by_scale(groups: Sequence[Indices], scale: Floats, rows: int) -> list[Indices]:
    """Split each group of rows by a rough guess of the rows' sizes, so that rows in one stratum are alike.

    Args:
        groups: Row numbers of each group.
        scale: A guess of every row's absolute sum, within a factor of a few. Rows guessed to be zero are left out.
        rows: How many are going to be drawn: no more strata than they can fill.

    Returns:
        Row numbers of each stratum, at most `STRATA_PER_GROUP` a group, cut at equal shares of the cumulated scale:
        then rows that hold most are nearly all looked at, and the share of those that are drawn is that of the mass.

    >>> [s.tolist() for s in strata_by_scale([np.arange(64)], np.repeat([0.0, 1.0, 4.0], [16, 40, 8]), 24)][-1]
    [61, 62, 63]
    """
    strata = []
    masses = [float(scale[group].sum()) for group in groups]
    enough = 1 if rows < 4 * LEAST_PER_STRATUM * len(groups) else 2
    for group, mass in zip(groups, masses, strict=True):
        alive = group[scale[group] > 0]
        if not len(alive):
            continue
        most = min(STRATA_PER_GROUP, max(enough, int(rows * mass / sum(masses)) // LEAST_PER_STRATUM))
        pieces = max(1, min(most, len(alive) // (2 * LEAST_PER_STRATUM)))
        ordered = alive[np.argsort(scale[alive], kind="stable")]
        cumulated = np.cumsum(scale[ordered])
        place = np.minimum((cumulated / cumulated[-1] * pieces - 1e-9).astype(int), pieces - 1)
        strata += [np.sort(ordered[place == piece]) for piece in range(pieces) if (place == piece).any()]
    return strata


def allocate(strata: Sequence[Indices], scale: Floats, rows: int) -> Indices:
    """How many rows to draw from each stratum: `rows` in all, or every row there is.

    In proportion to the strata's shares of the scale, but from each at least a few, as far as `rows` go.

    >>> allocate([np.arange(100), np.arange(100, 104)], np.ones(104), 50)
    array([46,  4])
    """
    sizes = np.array([len(stratum) for stratum in strata], dtype=np.int64)
    weight = np.array([scale[stratum].sum() for stratum in strata])
    rows = min(rows, int(sizes.sum()))
    counts: Indices = np.minimum(sizes, min(LEAST_PER_STRATUM, rows // max(len(strata), 1)))
    while left := rows - int(counts.sum()):
        room = sizes - counts
        wanted = np.maximum(rows * weight / weight.sum() - counts, 0.0) * (room > 0)
        wanted = wanted if wanted.any() else weight * (room > 0)
        more = np.minimum(np.floor(left * wanted / wanted.sum()).astype(np.int64), room)
        if not more.any():
            open_ones = np.flatnonzero(room)
            more[open_ones[np.argsort(-wanted[open_ones], kind="stable")][:left]] = 1
        counts = counts + more
    return counts


def ratio(numerator: Floats, denominator: Floats, strata: Sequence[Stratum], doubt: float = 1.0) -> Ratio | None:
    """Estimate the ratio of two population totals, in [0, 1], from a stratified sample without replacement.

    Args:
        numerator: One value per sampled row, at most the denominator's.
        denominator: Likewise.
        strata: Which sampled rows stand for how many.
        doubt: How many rows that carry the mass make a degree of freedom: more than one where a sample may lack rows
            of a kind that strata do not tell apart.

    Returns:
        The combined ratio estimate, its linearized standard error, and a 95 % interval: Student's t with
        Satterthwaite's degrees of freedom, on the logit scale, so that it stays within [0, 1]; fewer degrees where
        few rows carry the mass of strata that are not known, and all of [0, 1] where nearly one does, or none. NaN
        where the denominator vanishes; `None` where a stratum has no row: nothing is known of the totals then.
    """
    if not all(len(s.drawn) for s in strata):
        return None
    top = sum(s.size * numerator[s.drawn].mean() for s in strata)
    bottom = sum(s.size * denominator[s.drawn].mean() for s in strata)
    if not bottom > 0:
        return Ratio(float("nan"), float("nan"), (float("nan"), float("nan")))
    value = float(top / bottom)
    variance = spread = uncertain = squares = mass_spread = hidden = 0.0
    for s in strata:
        n = len(s.drawn)
        if n == s.size:
            continue
        deviation = numerator[s.drawn] - value * denominator[s.drawn]
        # A single row says nothing of the spread; its squared deviation is no less in expectation (collapsed strata).
        square = float(deviation.var(ddof=1)) if n > 1 else float(deviation[0] ** 2)
        part = s.size**2 * (1 - n / s.size) / n * square
        variance += part
        spread += part**2 / max(n - 1, 1)
        uncertain += float(s.size * denominator[s.drawn].mean())
        mass = float(((s.size / n * denominator[s.drawn]) ** 2).sum())
        squares += mass
        mass_spread += mass**2 / max(n - 1, 1)
        if not s.sorted:
            hidden += _hidden(numerator - value * denominator, denominator, s)
    if all(len(s.drawn) == s.size for s in strata):
        return Ratio(value, 0.0, (value, value))
    stderr = float(np.sqrt(variance + hidden) / bottom)
    # How many rows carry the mass (Kish), of strata that are not known: where they seem to be empty, none does.
    effective = uncertain**2 / squares if squares else 0.0
    if effective < LEAST_EFFECTIVE:
        return Ratio(value, stderr, (0.0, 1.0))
    if not 0 < value < 1 or stderr == 0:
        # Rows that are all alike: as for a share of which no case was seen.
        unseen = 1 - 0.05 ** (1 / effective)
        return Ratio(value, stderr, (max(value - unseen, 0.0), min(value + unseen, 1.0)))
    # A few rows of one stratum may look alike by luck: then its mass says how much hangs on them.
    left = sum(s.size - len(s.drawn) for s in strata)  # the error is a sum over these: of few, it is not normal
    freedom = max(min(variance**2 / spread, squares**2 / mass_spread, (effective - 1) / doubt, left + 2), 1.0)
    reach = quantiles.student(0.975, freedom) * stderr / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = ((1 + np.tanh((logit + side * reach) / 2)) / 2 for side in (-1, 1))  # logistic, without overflow
    return Ratio(value, stderr, (float(low), float(high)))


def _hidden(deviation: Floats, denominator: Floats, stratum: Stratum) -> float:
    """Variance by heavy rows that a stratum may have where those that were drawn hold nothing, or one of them most.

    As many of those left as 95 % certainty allows when none of that kind was drawn, taken for two standard deviations;
    each like the rows that hold most elsewhere.
    """
    held, n = denominator[stratum.drawn], len(stratum.drawn)
    if held.sum() ** 2 >= LEAST_EFFECTIVE * (held**2).sum() > 0:
        return 0.0
    count = (stratum.size - n) * (1 - 0.05 ** (1 / n)) / 2
    weights = denominator / denominator.sum()
    return float(count**2 * (weights * deviation**2).sum())


def total(values: Floats, strata: Sequence[Stratum]) -> float:
    """Estimate of a population total."""
    return float(totals(values, strata))


def totals(values: Floats, strata: Sequence[Stratum]) -> Floats:
    """Estimates of the totals of each column, shape (columns,), from values of shape (rows, columns)."""
    found: Floats = sum((s.size * values[s.drawn].mean(0) for s in strata), np.zeros(values.shape[1:]))
    return found


def spread_order(groups: Sequence[Indices], rng: np.random.Generator, least: int = 2) -> Indices:
    """All rows in an order whose every beginning is a stratified random sample: stopping early leaves an estimate.

    One row of every group, then a second one, and so on until each has `least`; then in proportion to what they have.

    >>> spread_order([np.arange(16), np.arange(16, 18)], np.random.default_rng(0))[:5] // 16
    array([0, 1, 0, 1, 0])
    """
    if not groups:
        return np.zeros(0, dtype=np.int64)
    places = [np.arange(len(group)) for group in groups]
    keys = [np.where(place < least, place - float(least), place / len(place)) for place in places]
    shuffled = [rng.permutation(group) for group in groups]
    return np.concatenate(shuffled)[np.argsort(np.concatenate(keys), kind="stable")]
