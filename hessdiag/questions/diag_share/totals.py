"""From computed rows of a Hessian to its diagonal share, overall and per layer, with what a sample leaves uncertain."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessdiag.fields import Matrix
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.questions.diag_share.result import LayerShare
from hessdiag.questions.diag_share.rows import Rows
from hessdiag.statistics import sampling
from hessdiag.statistics.intervals import Estimated, EstimatedNumber
from hessdiag.statistics.sampling import Draw, Ratio, Stratum
from hessdiag.theory import wigner_ols

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What rows tell of the whole matrix, as `DiagShare` has it; what they do not tell is `None`."""

    diag_share: EstimatedNumber
    layer_block_share: EstimatedNumber
    layer_block_matrix: Matrix | None
    abs_diag_sum: float | None
    abs_sum: float | None
    trace: float | None
    negative_diagonal_fraction: float | None
    zero_rows: float | None
    layers: tuple[LayerShare, ...]


@dataclass(frozen=True)
class _Units:
    """What was drawn: rows, or whole neurons, whose numbers are the sums over their rows."""

    indices: Indices
    magnitude: Floats
    sums: Floats  # (units, L)
    own: Floats
    negative: Floats
    vanishing: Floats
    owner: Indices

    @property
    def whole(self) -> Floats:
        return np.asarray(self.sums.sum(1))


def summarize(
    problem: Problem,
    rows: Rows,
    places: list[Indices],
    zero_rows: float,
    complete: bool,
    draw: Draw | None = None,
) -> Totals:
    """From rows to shares and totals. Nothing is said of a total whose rows are not all stood for.

    Args:
        problem: What was asked about.
        rows: What was computed.
        places: The strata: of each the parameters, or one parameter of each unit that could be drawn.
        zero_rows: Fraction of all rows that are in no stratum, for they vanish.
        complete: Whether every row was computed.
        draw: How units were drawn; `None` where all of a stratum had the same chance.
    """
    layers, n = problem.layer_slices, problem.n_parameters
    owner = np.searchsorted([layer.stop for layer in layers], rows.indices, side="right")
    units = _units(rows, owner)
    whole, strata = units.whole, _drawn(places, units.indices, draw)
    unseen = _unseen(problem, units.indices, draw)
    parts = [_Part.of(layer, index, units, strata, places) for index, layer in enumerate(layers)]
    executed = [layers.index(layer) for layer in problem.executed_layers]
    reached = all(len(stratum.drawn) for stratum in strata)
    mass = sampling.total(whole, strata) if reached else None
    matrix = None
    if mass is not None and all(part.measured for part in parts):
        matrix = _blocks(np.array([part.total(units.sums) for part in parts]), mass, executed)
    vanishing = None
    if reached and rows.whole:
        vanishing = zero_rows + sampling.count(units.vanishing, strata) / n if strata else 1.0
    counts = np.bincount(owner, minlength=len(layers))
    shares = [
        part.share(units.magnitude, units.own, unseen(layer.start, layer.stop))
        for layer, part in zip(layers, parts, strict=True)
    ]
    return Totals(
        diag_share=_estimated(_share(units.magnitude, whole, strata, unseen(0, n)), complete),
        layer_block_share=_estimated(_share(units.own, whole, strata, unseen(0, n)), complete),
        layer_block_matrix=matrix,
        abs_diag_sum=sampling.total(units.magnitude, strata) if reached else None,
        abs_sum=mass,
        trace=float(rows.diagonal.sum()) if complete else None,
        negative_diagonal_fraction=sampling.count(units.negative, strata) / n if reached else None,
        zero_rows=vanishing,
        layers=tuple(
            _layer_share(
                layers[index],
                _estimated(shares[index], complete),
                rows=int(counts[index]),
                mass=float(parts[index].total(units.own)) if parts[index].measured else None,
                targets=problem.n_targets,
            )
            for index in executed
        ),
    )


def _layer_share(layer: Layer, share: EstimatedNumber, *, rows: int, mass: float | None, targets: int) -> LayerShare:
    return LayerShare(
        name=layer.name,
        kind=layer.kind,
        parameters=layer.size,
        rows=rows,
        diag_share=share.value,
        diag_share_stderr=share.stderr,
        diag_share_interval=share.interval,
        wigner=wigner_ols.wigner_share(layer.size),
        ols_gaussian=wigner_ols.ols_share_gaussian(targets, layer.size),
        abs_sum=mass,
    )


def _blocks(masses: Floats, whole: float, order: list[int]) -> tuple[tuple[float, ...], ...]:
    """The share of each pair of layers, from the absolute mass of each layer's rows by column layer."""
    masses = (masses + masses.T) / 2
    shares = masses / whole if whole > 0 else np.full_like(masses, np.nan)
    return tuple(map(tuple, shares[np.ix_(order, order)].tolist()))


@dataclass(frozen=True)
class _Part:
    """One layer's rows in the sample: the strata that hold some, and which of the units in them are its own."""

    strata: list[Stratum]
    own: NDArray[np.bool_] | None  # of all units; `None` where the strata hold nothing else
    measured: bool

    @classmethod
    def of(cls, layer: Layer, index: int, units: _Units, strata: list[Stratum], places: list[Indices]) -> "_Part":
        held = [int(np.diff(np.searchsorted(place, [layer.start, layer.stop]))[0]) for place in places]
        mine = [stratum for stratum, count in zip(strata, held, strict=True) if count]
        reached = all(len(stratum.drawn) for stratum in mine)
        if all(count in (0, len(place)) for count, place in zip(held, places, strict=True)):
            return cls(mine, None, reached)
        own = units.owner == index
        return cls(mine, own, reached and any(own[stratum.drawn].any() for stratum in mine))

    def total(self, values: Floats) -> Floats:
        """Estimate of the layer's total of each column; zero where the layer is in no stratum, for it vanishes."""
        if not self.strata:
            return np.zeros(values.shape[1:])
        return sampling.totals(self._only(values), self.strata)

    def share(self, numerator: Floats, denominator: Floats, unseen: float) -> Ratio | None:
        """A ratio of two totals of the layer."""
        return _share(self._only(numerator), self._only(denominator), self.strata, unseen) if self.measured else None

    def _only(self, values: Floats) -> Floats:
        if self.own is None:
            return values
        return values * self.own.reshape(-1, *[1] * (values.ndim - 1))


def _units(rows: Rows, owner: Indices) -> _Units:
    count = rows.sums.shape[1]
    own = np.take_along_axis(rows.sums, owner[:, None], axis=1)[:, 0] if len(rows.indices) else np.zeros(0)
    each = _Units(
        rows.indices,
        np.abs(rows.diagonal),
        rows.sums,
        own,
        (rows.diagonal < 0).astype(float),
        (rows.sums.sum(1) == 0).astype(float),
        owner,
    )
    if rows.units is None:
        return each
    units, first, place = np.unique(rows.units, return_index=True, return_inverse=True)

    def summed(values: Floats) -> Floats:
        return np.bincount(place, values, minlength=len(units)).astype(np.float64)

    return _Units(
        units,
        summed(each.magnitude),
        np.stack([summed(rows.sums[:, index]) for index in range(count)], axis=1),
        summed(own),
        summed(each.negative),
        summed(each.vanishing),
        owner[first],
    )


def _drawn(strata: list[Indices], computed: Indices, draw: Draw | None) -> list[Stratum]:
    """Match what was computed to the strata that it stands for; a stratum that was not reached has none."""
    last = max((int(part.max()) for part in (*strata, computed) if len(part)), default=-1)
    place = np.full(last + 1, -1)
    place[computed] = np.arange(len(computed))
    places = [place[stratum] for stratum in strata]
    if draw is None:
        return [Stratum(len(own), own[own >= 0]) for own in places]
    return [draw.stratum(stratum, own) for stratum, own in zip(strata, places, strict=True)]


def _unseen(problem: Problem, computed: Indices, draw: Draw | None) -> Callable[[int, int], float]:
    """The part that tensors of which no row was computed hold of the rows from one to another, as far as is guessed."""
    places = problem.places()
    held = np.array([0.0 if draw is None else draw.sizes[place.start : place.stop].sum() for place in places])
    starts = np.array([place.start for place in places])
    seen = np.zeros(len(places), dtype=bool)
    seen[np.searchsorted(starts, computed, side="right") - 1] = True

    def part(start: int, stop: int) -> float:
        inside = held * ((starts >= start) & (starts < stop))
        return float(inside[~seen].sum() / (inside.sum() or 1.0))

    return part


def _share(numerator: Floats, denominator: Floats, strata: list[Stratum], unseen: float) -> Ratio | None:
    """As `sampling.ratio`, and `None` where all computed rows vanish but others may not: that is no number either."""
    found = sampling.ratio(numerator, denominator, strata, unseen)
    census = all(len(stratum.drawn) == stratum.size for stratum in strata)
    return None if found is None or (math.isnan(found.value) and not census) else found


def _estimated(share: Ratio | None, complete: bool) -> EstimatedNumber:
    """A share as results hold it; where only the bounds of any share are certain, there is no error either."""
    known = complete or (share is not None and share.interval[0] == share.interval[1])  # all of its rows are there
    sampled = None if known else share
    return Estimated(
        None if share is None else share.value,
        None if sampled is None or sampled.interval == (0.0, 1.0) else sampled.stderr,
        None if sampled is None else sampled.interval,
    )
