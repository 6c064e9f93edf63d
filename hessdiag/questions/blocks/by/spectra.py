"""How much the spectra of blocks differ: Jensen-Shannon distances between their densities on one axis.

After Zhang et al., Why Transformers Need Adam (arXiv 2402.16788), who compare blocks' spectra so. Eigenvalues of
blocks differ by orders of magnitude, and most are near zero, where quadrature does not tell them apart. So the axis is
logarithmic for both signs and linear below a thousandth of the largest magnitude of any block, and densities are
smoothed by half a decade: fine enough to tell spectra apart, and coarse enough to be known from few products.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessdiag.linalg.densities import Density, gaussian
from hessdiag.statistics import quantiles
from hessdiag.statistics.intervals import Z, jackknife

Floats = NDArray[np.float64]

LINEAR_BELOW = 1e-3  # of the largest magnitude of an eigenvalue of any block
WIDTH = 0.5  # decades: standard deviation of the Gaussian that smooths
PER_WIDTH = 6  # points of the grid
REACH = 5.0  # widths beyond the largest magnitude at which the grid ends
RESOLUTION = 0.004  # error of a mean distance by 60 steps that neither probes nor rules show, as seen on 13 networks
MOST_COMPARED = 1_000  # blocks; a pair of them takes a microsecond or two


@dataclass(frozen=True)
class Axis:
    """Positions of eigenvalues: asinh(x / (2 `linear_below`)) / ln 10, which is decades above `linear_below`.

    Attributes:
        linear_below: Magnitude around which the axis turns from linear to logarithmic.
        grid: Positions, evenly spaced, symmetric around zero.
    """

    linear_below: float
    grid: Floats

    @classmethod
    def of(cls, largest: float) -> "Axis":
        """The axis for eigenvalues up to a magnitude, which is positive.

        >>> Axis.of(2.0).position(np.array([0.0, 2.0, -2.0])).round(3)
        array([ 0.,  3., -3.])
        """
        below = LINEAR_BELOW * largest
        end = math.asinh(largest / (2 * below)) / math.log(10) + REACH * WIDTH
        half = math.ceil(end / WIDTH * PER_WIDTH)
        return cls(below, np.linspace(-half, half, 2 * half + 1) * (WIDTH / PER_WIDTH))

    @property
    def step(self) -> float:
        """Distance of neighbours on the grid."""
        return WIDTH / PER_WIDTH

    @property
    def eigenvalues(self) -> Floats:
        """What is at each point of the grid."""
        return np.asarray(2 * self.linear_below * np.sinh(self.grid * math.log(10)))

    def position(self, eigenvalues: Floats) -> Floats:
        """Where eigenvalues are on the axis."""
        return np.asarray(np.arcsinh(eigenvalues / (2 * self.linear_below)) / math.log(10))

    def density(self, eigenvalues: Floats, weights: Floats) -> Floats:
        """Density of weighted eigenvalues at the points of the grid, whose integral is the sum of the weights."""
        found: Floats = weights @ gaussian(self.grid, self.position(eigenvalues), WIDTH)
        return found


@dataclass(frozen=True)
class Spectrum:
    """What is known of one block's spectrum.

    Attributes:
        size: Eigenvalues of the block.
        known: Of them, those that are known, (k,); the others are in the quadratures.
        zeros: How many more are known to be zero.
        nodes: Of the quadrature from each probe, (probes, steps); NaN where a Krylov space ended early.
        weights: Beside them; each row sums to the share of the eigenvalues that are not known.
        anti: Nodes and weights of the anti-Gauss rules; all four are `None` where every eigenvalue is known.
    """

    size: int
    known: Floats
    zeros: int = 0
    nodes: Floats | None = None
    weights: Floats | None = None
    anti: tuple[Floats, Floats] | None = None

    @classmethod
    def of(cls, density: Density) -> "Spectrum":
        """That of quadratures."""
        return cls(density.n, density.outliers, density.zeros, density.nodes, density.weights, density.anti)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        nodes = np.zeros(0) if self.nodes is None else self.nodes[~np.isnan(self.nodes)]
        return float(np.abs(np.concatenate([self.known, nodes])).max(initial=0.0))

    def densities(self, axis: Axis) -> Floats:
        """One for each probe, (probes, points), or (1, points) where all is known."""
        return self._with(axis, self.nodes, self.weights)

    def opposite(self, axis: Axis) -> Floats:
        """By the anti-Gauss rules, (points,): their error is about the opposite of what all probes have in common."""
        found: Floats = self._with(axis, *(self.anti or (None, None))).mean(0)
        return found

    def _with(self, axis: Axis, nodes: Floats | None, weights: Floats | None) -> Floats:
        values = np.concatenate([self.known, np.zeros(min(self.zeros, 1))])
        shares = np.concatenate([np.full(len(self.known), 1.0), np.full(min(self.zeros, 1), float(self.zeros))])
        known = axis.density(values, shares / self.size)[None]
        if nodes is None or weights is None:
            return known
        own = np.stack([axis.density(np.nan_to_num(x), w) for x, w in zip(nodes, weights, strict=True)])
        return np.asarray(known + own)


@dataclass(frozen=True)
class Compared:
    """How far spectra are from each other.

    Attributes:
        heterogeneity: Mean Jensen-Shannon distance over all pairs, from 0 (all alike) to 1 (nothing in common).
        stderr: Its standard error; `None` where all spectra are exact.
        distances: Of each block, the mean distance to all others, (blocks,).
        densities: Of each block, (blocks, points).
    """

    heterogeneity: float
    stderr: float | None
    distances: Floats
    densities: Floats


def compare(spectra: Sequence[Spectrum], axis: Axis) -> Compared:
    """Jensen-Shannon distances of all pairs of two spectra or more, with what probes and steps leave uncertain.

    From probes the mean and its error are the jackknife's. The error also has the difference of Gauss and anti-Gauss
    rules, and what 60 steps were seen to leave unresolved beyond that.

    >>> one = Spectrum(2, np.array([1.0, 2.0]))
    >>> compare([one, one], Axis.of(2.0)).heterogeneity
    0.0
    >>> round(compare([one, Spectrum(2, np.array([-1.0, -2.0]))], Axis.of(2.0)).heterogeneity, 6)
    1.0
    """
    parts = [spectrum.densities(axis) for spectrum in spectra]
    densities = np.stack([part.mean(0) for part in parts])
    between = distances(densities, axis.step)
    others = len(spectra) - 1
    mean, stderr = float(between.sum()) / (others * len(spectra)), None
    probes = min((len(part) for part in parts if len(part) > 1), default=0)
    if probes:
        without = np.array([_mean(np.stack([_less(part, probe) for part in parts]), axis) for probe in range(probes)])
        noise = (probes - 1) * (float(without.mean()) - mean)  # what differs by chance is no difference of spectra
        opposite = _mean(np.stack([spectrum.opposite(axis) for spectrum in spectra]), axis)
        widening = float(quantiles.student(0.975, probes - 1)) / Z
        stderr = math.hypot(widening * math.sqrt(jackknife(without)), noise, mean - opposite, RESOLUTION)
        mean = max(mean - noise, 0.0)
    return Compared(mean, stderr, between.sum(1) / others, densities)


def _less(densities: Floats, probe: int) -> Floats:
    """The mean density without one of the probes; that of a spectrum that has none is exact."""
    found: Floats = (densities if len(densities) == 1 else np.delete(densities, probe, 0)).mean(0)
    return found


def _mean(densities: Floats, axis: Axis) -> float:
    return float(distances(densities, axis.step).sum()) / (len(densities) * (len(densities) - 1))


def distances(densities: Floats, step: float) -> Floats:
    """Jensen-Shannon distances between densities on a grid (blocks, points): roots of divergences in bits.

    >>> distances(np.array([[1.0, 0.0], [0.0, 1.0]]), 1.0)
    array([[0., 1.],
           [1., 0.]])
    """
    own = _entropies(densities) * step
    found = np.zeros((len(densities),) * 2)
    for index, density in enumerate(densities):
        middle = _entropies((densities[index:] + density) / 2) * step
        found[index, index:] = np.sqrt(np.clip(middle - (own[index:] + own[index]) / 2, 0.0, 1.0))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found + found.T)


def _entropies(densities: Floats) -> Floats:
    """Of densities per point of the grid, in bits, without the constant that cancels in differences."""
    tiny = np.finfo(float).tiny
    return np.asarray(-(densities * np.log2(np.maximum(densities, tiny))).sum(1))
