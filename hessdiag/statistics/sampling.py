"""Sampling rows of a large matrix without replacement, in strata, and ratios of totals estimated from them.

Rows that a guess takes for large are likely to be drawn: each has a ticket, uniform over its guessed size, and those of
the lowest tickets come first. So every beginning of the order is a sample (sequential Poisson sampling, Ohlsson 1998;
priority sampling, Duffield, Lund and Thorup 2007). Pure numpy: knows no model. Ratios in stratified samples follow
Cochran, Sampling Techniques, chapters 5 and 6; variances of unequal chances Hajek.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessdiag.statistics import quantiles

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST_PER_STRATUM = 4  # rows to draw of each stratum at least, and that stand for what is left of it
LEAST_DRAWN = 3  # rows of each stratum before any has more: two tell a spread, three how sure it is
BEGINNING = 8  # rows of each group of a list that is taken in order, before any has more
DEFENSIVE = 0.1  # of the mean size that every row is given besides its guess, which may be too low
MOST_LEVERAGE = 0.9  # of one row on a ratio
LEAST_EFFECTIVE = 2.0  # rows that carry the mass, below which nothing is known of their spread


@dataclass(frozen=True)
class Stratum:
    """Rows of one kind, of which some were looked at, or none yet.

    Attributes:
        size: How many there are.
        drawn: Which of the sample's rows are its own.
        weights: For how many each of these stands, itself included; `None` where all had the same chance.
        sizes: By what they were drawn; `None` likewise.
        left: The sum of squares of the sizes of what was not drawn.
    """

    size: int
    drawn: Indices
    weights: Floats | None = None
    sizes: Floats | None = None
    left: float | None = None

    @property
    def stands_for(self) -> Floats:
        """The weight of each row that was drawn."""
        return np.full(len(self.drawn), self.size / max(len(self.drawn), 1)) if self.weights is None else self.weights

    def prediction(self, deviation: Floats) -> float:
        """Variance of the total of what is left, predicted by size, if rows deviate in proportion to their sizes.

        Unlike the variance over draws, it knows what rows tell that were certain to be drawn, and what they tell of
        the few that are left.
        """
        sizes = np.ones(len(self.drawn)) if self.sizes is None else self.sizes
        left = self.size - len(self.drawn) if self.left is None else self.left
        stands = (self.stands_for - 1) * sizes
        if len(sizes) < 2 or not stands.sum() > 0:
            return 0.0
        relative = deviation / sizes
        centre = np.average(relative, weights=stands)
        square = ((relative - centre) ** 2).sum() / (len(sizes) - 1)
        return float(square * (left + (stands**2).sum()))


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


def allocate(sizes: Indices, rows: int) -> Indices:
    """How many rows to draw from each stratum: `rows` in all, or every row there is.

    In proportion to the strata's sizes, but from each at least a few, as far as `rows` go.

    >>> allocate(np.array([100, 4]), 50)
    array([46,  4])
    """
    rows = min(rows, int(sizes.sum()))
    counts: Indices = np.minimum(sizes, min(LEAST_PER_STRATUM, rows // max(len(sizes), 1)))
    while left := rows - int(counts.sum()):
        room = sizes - counts
        wanted = np.maximum(rows * sizes / sizes.sum() - counts, 0.0) * (room > 0)
        wanted = wanted if wanted.any() else sizes * (room > 0)
        more = np.minimum(np.floor(left * wanted / wanted.sum()).astype(np.int64), room)
        if not more.any():
            open_ones = np.flatnonzero(room)
            more[open_ones[np.argsort(-wanted[open_ones], kind="stable")][:left]] = 1
        counts = counts + more
    return counts


@dataclass(frozen=True)
class Draw:
    """In which order rows are drawn: those of the lowest tickets first.

    Attributes:
        sizes: Of all rows, (N,): the larger, the earlier.
        tickets: Uniform over size; infinite where a row has no size.
    """

    sizes: Floats
    tickets: Floats

    @classmethod
    def of(cls, sizes: Floats, rng: np.random.Generator) -> "Draw":
        """Tickets for rows of known sizes."""
        with np.errstate(divide="ignore"):
            return cls(sizes, rng.random(len(sizes)) / sizes)

    @classmethod
    def by_guess(cls, guesses: Floats, groups: Sequence[Indices], rng: np.random.Generator) -> "Draw":
        """For sizes a guess, as far as it tells the rows of a group apart.

        Args:
            guesses: Two independent ones of each row, (2, N), that differ by factors; zero where a row vanishes.
            groups: Rows that are compared. Rows of no group are never drawn.
            rng: What draws.
        """
        sizes = np.zeros(guesses.shape[1])
        for group in groups:
            alive = group[guesses[:, group].max(0) > 0]
            if len(alive):
                sizes[alive] = _believed(guesses[:, alive])
        return cls.of(sizes, rng)

    def order(self, groups: Sequence[Indices], least: int = 2) -> Indices:
        """All rows in an order whose every beginning is a stratified random sample: stopping early leaves an estimate.

        One row of every group, then a second one, and so on until each has `least`; then in proportion to their sizes.

        >>> draw = Draw.of(np.ones(18), np.random.default_rng(0))
        >>> draw.order([np.arange(16), np.arange(16, 18)])[:5] // 16
        array([0, 1, 0, 1, 0])
        """
        if not groups:
            return np.zeros(0, dtype=np.int64)
        mass = np.array([self.sizes[group].sum() for group in groups])
        mass = mass / (mass.sum() or 1.0)
        keys = []
        for group, share in zip(groups, mass, strict=True):
            place = np.arange(len(group))
            keys.append(np.where(place < least, place - float(least), place / (share or 1e-300)))
        parts = [group[np.argsort(self.tickets[group], kind="stable")] for group in groups]
        return np.concatenate(parts)[np.argsort(np.concatenate(keys), kind="stable")]

    def among(self, places: Indices, count: int) -> "Draw":
        """The same rows as those at some places among more, of which the others are never drawn."""
        sizes, tickets = np.zeros(count), np.full(count, np.inf)
        sizes[places], tickets[places] = self.sizes, self.tickets
        return Draw(sizes, tickets)

    def stratum(self, rows: Indices, places: Indices) -> Stratum:
        """Rows of one kind with their places in a sample, which are negative where they are not in it."""
        drawn = places >= 0
        left = float((self.sizes[rows[~drawn]] ** 2).sum())
        return Stratum(len(rows), places[drawn], self.weights(rows, drawn), self.sizes[rows[drawn]], left)

    def weights(self, stratum: Indices, drawn: NDArray[np.bool_]) -> Floats:
        """For how many each drawn row of a stratum stands, when those of the lowest tickets were drawn.

        The lowest ticket left, t, is a threshold: a row of size x is below it with the chance min(1, t x). What is
        left counts by its size, for which those stand that were not certain to be drawn: sizes add up to that of the
        stratum. A few rows stand for it at least, the smallest: else nothing would be known of it.

        >>> draw = Draw(np.array([9.0, 1, 1, 1, 1, 1, 1, 1]), np.arange(1, 9) / 10)
        >>> draw.weights(np.arange(8), np.arange(8) < 5)
        array([1.  , 1.75, 1.75, 1.75, 1.75])
        """
        own, rest = self.sizes[stratum[drawn]], stratum[~drawn]
        left = float(self.sizes[rest].sum())
        if not len(own) or not left > 0:
            return np.ones(len(own))
        odds = np.maximum(1 / (self.tickets[rest].min() * own) - 1, 0.0)
        if (odds > 0).sum() < LEAST_PER_STRATUM:
            smallest = np.argsort(own, kind="stable")[:LEAST_PER_STRATUM]
            odds = np.zeros(len(own))
            odds[smallest] = 1 / own[smallest]
        return np.asarray(1 + left * odds / (odds @ own))


def _believed(guesses: Floats) -> Floats:
    """One size from two guesses of each row of a group: their mean, nearer to the group's the less they agree.

    By logarithms, and as linear prediction shrinks what is measured with a known error; the sum stays. Each row has
    some part of the mean besides, for one whose guess is far too low would stand for far too many.
    """
    logs = np.log(guesses)
    means = logs.mean(0)
    noise, spread = float(((logs[0] - logs[1]) ** 2).mean() / 4), float(means.var())
    trust = max(1 - noise / spread, 0.0) if spread > 0 else 0.0
    sizes = np.exp(trust * (means - means.max()))
    sizes = (1 - DEFENSIVE) * sizes + DEFENSIVE * sizes.mean()
    return np.asarray(sizes * (np.exp(means).sum() / sizes.sum()))


def ratio(numerator: Floats, denominator: Floats, strata: Sequence[Stratum], unseen: float = 0.0) -> Ratio | None:
    """Estimate the ratio of two population totals, in [0, 1], from a stratified sample without replacement.

    Args:
        numerator: One value per sampled row, at most the denominator's.
        denominator: Likewise.
        strata: Which sampled rows stand for how many.
        unseen: Part of the denominator's total, roughly, that belongs to kinds of rows of which none was drawn.

    Returns:
        The combined ratio estimate, its linearized standard error, and a 95 % interval: Student's t for the
        jackknife's error, or that of a prediction by sizes if larger, with Satterthwaite's degrees of freedom, on the
        logit scale, so that it stays within [0, 1]; fewer degrees where few rows carry the mass of strata that are not
        known, and all of [0, 1] where nearly one does, or none. What is unseen may have any ratio. NaN where the
        denominator vanishes; `None` where a stratum has no row:
        nothing is known of the totals then.
    """
    if not all(len(s.drawn) for s in strata):
        return None
    top, bottom = total(numerator, strata), total(denominator, strata)
    if not bottom > 0:
        return Ratio(float("nan"), float("nan"), (float("nan"), float("nan")))
    value = float(top / bottom)
    numerator, denominator = numerator / bottom, denominator / bottom  # fourth powers of small numbers would vanish
    variance = jackknife = spread = uncertain = squares = mass_spread = 0.0
    for s in strata:
        weight = s.stands_for
        for_others = weight > 1
        rows, weight = s.drawn[for_others], weight[for_others]
        if not len(rows):
            continue
        n, missed, mass = len(rows), 1 - 1 / weight, weight * denominator[rows]
        deviation = weight * (numerator[rows] - value * denominator[rows])
        variance += float(_squares(deviation, missed).sum())
        # Without a row the ratio would be another one: what hangs on a row is left out of its own deviation.
        leverage = np.minimum(missed * mass, MOST_LEVERAGE)
        terms = _squares(deviation / (1 - leverage), missed)
        part = float(terms.sum())
        # How sure the spread is: as for normal numbers, or less where a few make most of it.
        unsure = max(part**2 / max(n - 1, 1), n * float(terms.var(ddof=min(n - 1, 1))) / 2)
        predicted = s.prediction(numerator[s.drawn] - value * denominator[s.drawn])
        if predicted > part:
            part, unsure = predicted, predicted**2 / (len(s.drawn) - 1)
        jackknife += part
        spread += unsure
        uncertain += float(mass.sum())
        squares += float((mass**2).sum())
        mass_spread += float((mass**2).sum()) ** 2 / max(n - 1, 1)
    if all(len(s.drawn) == s.size for s in strata):
        return Ratio(value, 0.0, (value, value))
    stderr = float(np.sqrt(variance))
    # How many rows carry the mass (Kish), of strata that are not known: where they seem to be empty, none does.
    effective = uncertain**2 / squares if squares else 0.0
    if effective < LEAST_EFFECTIVE:
        return Ratio(value, stderr, (0.0, 1.0))
    if not 0 < value < 1 or not spread > 0:
        # Rows that are all alike: as for a share of which no case was seen.
        rare = 1 - 0.05 ** (1 / effective)
        return Ratio(value, stderr, _mixed(max(value - rare, 0.0), min(value + rare, 1.0), unseen))
    # A few rows of one stratum may look alike by luck: then its mass says how much hangs on them.
    left = sum(s.size - len(s.drawn) for s in strata)  # the error is a sum over these: of few, it is not normal
    freedom = max(min(jackknife**2 / spread, squares**2 / mass_spread, effective - 1, left + 2), 1.0)
    reach = quantiles.student(0.975, freedom) * np.sqrt(jackknife) / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = ((1 + np.tanh((logit + side * reach) / 2)) / 2 for side in (-1, 1))  # logistic, without overflow
    return Ratio(value, stderr, _mixed(float(low), float(high), unseen))


def _squares(deviation: Floats, missed: Floats) -> Floats:
    """What each row adds to the variance of a stratum's total; `missed` is the chance not to be drawn."""
    n = len(deviation)
    # A single row says nothing of the spread; its squared deviation is no less in expectation (collapsed strata).
    centre = float(np.average(deviation, weights=missed)) if n > 1 else 0.0
    return np.asarray(missed * (deviation - centre) ** 2 * n / max(n - 1, 1))


def _mixed(low: float, high: float, unseen: float) -> tuple[float, float]:
    """Bounds of a ratio of which a part may be anything from 0 to 1."""
    return low * (1 - unseen), high * (1 - unseen) + unseen


def total(values: Floats, strata: Sequence[Stratum]) -> float:
    """Estimate of a population total."""
    return float(totals(values, strata))


def totals(values: Floats, strata: Sequence[Stratum]) -> Floats:
    """Estimates of the totals of each column, shape (columns,), from values of shape (rows, columns)."""
    found: Floats = sum((s.stands_for @ values[s.drawn] for s in strata), np.zeros(values.shape[1:]))
    return found


def count(holds: Floats, strata: Sequence[Stratum]) -> float:
    """Estimate of how many rows of a population something holds for, at most all of them."""
    return float(sum(s.size * np.average(holds[s.drawn], weights=s.stands_for) for s in strata))
