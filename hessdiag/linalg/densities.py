"""A distribution of eigenvalues known through quadratures: what follows from it, with an interval at every point."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hessdiag.statistics import intervals
from hessdiag.statistics.intervals import Average

Floats = NDArray[np.float64]

MOMENTS = 4
REACH = 5.0  # smoothing widths beyond the outermost node at which a grid ends: 6e-7 of a Gaussian's mass is outside
PER_WIDTH = 6  # grid points per smoothing width
DECADES = 12.0  # below the largest magnitude: where the logarithmic grid ends
NARROWEST = 1e-9  # of the norm: what a grid in floating point can still show
SKETCH_PARTS = (0.0, 1 / 13, 1 / 8, 1 / 5, 1 / 4, 1 / 3, 3 / 8)  # of the products for a trace: vectors of a sketch
LOG_WIDTH = 0.1  # decades: smoothing of the logarithmic density


@dataclass(frozen=True)
class LogDensity:
    """Densities per decade of positive and of negative eigenvalues, NaN where the nodes do not resolve them.

    Attributes:
        positive: Of positive eigenvalues.
        negative: Of negative ones.
        unresolved_below: Magnitude below which nothing is resolved; 0 where everything is.
        unresolved_share: Between what the share of the eigenvalues of smaller magnitude lies, at 95 %.
    """

    positive: Average
    negative: Average
    unresolved_below: float
    unresolved_share: tuple[float, float]


@dataclass(frozen=True)
class Density:
    """The distribution of eigenvalues, known through k quadratures of m nodes and r exact eigenvalues.

    Attributes:
        nodes: Ritz values of each probe, ascending, (k, m); NaN where a Krylov space ended early.
        weights: Their shares of the spectrum's bulk; each row sums to `bulk`, (k, m), and is 0 beside a NaN.
        outliers: Eigenvalues taken out exactly, (r,), each of mass 1 / n.
        n: Dimension of the matrix.
        width: Standard deviation of the Gaussian that `density` smooths with.
        products: Products with vectors spent.
        zeros: How many eigenvalues are known to be exactly zero; they are among the n, and in no quadrature.
        anti: Nodes and weights of the anti-Gauss rules (Laurie 1996), whose error is about the negative of the Gauss
            rules': their difference shows what all probes fail to resolve. `None` where nothing is random.
    """

    nodes: Floats
    weights: Floats
    outliers: Floats
    n: int
    width: float
    products: int
    zeros: int = 0
    anti: tuple[Floats, Floats] | None = None

    @property
    def bulk(self) -> float:
        """Share of the spectrum that is neither among the outliers nor known to be zero."""
        return 1.0 - (len(self.outliers) + self.zeros) / self.n

    @property
    def dimension(self) -> int:
        """Of the sphere that the probes come from: as many eigenvalues are in the bulk."""
        return self.n - len(self.outliers) - self.zeros

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest node or outlier."""
        values = np.concatenate([self.nodes[~np.isnan(self.nodes)], self.outliers, np.zeros(min(self.zeros, 1))])
        return float(values.min()), float(values.max())

    @property
    def scale(self) -> float:
        """The largest magnitude of a node or outlier: the spectral norm, as far as it is known."""
        return max(map(abs, self.support))

    @property
    def exact(self) -> bool:
        """Whether all eigenvalues are known, so that nothing is random."""
        return self.anti is None

    def mean(self, function: Callable[[Floats], Floats]) -> Average:
        """(1 / n) tr f(A) for one function or several: f maps (m,) to (m,) or (m, q).

        Exact in quadrature for polynomials of degree 2 m - 1; the error is that of the random probes.
        """
        values = self._values(function, self.nodes)
        known: Floats = function(self.outliers).sum(0) / self.n if len(self.outliers) else np.float64(0.0)
        if self.zeros:
            known = known + function(np.zeros(1))[0] * (self.zeros / self.n)
        if self.exact:
            value = np.tensordot(self.weights[0], values[0], axes=1) + known
            nothing = np.full_like(value, np.nan)
            return Average(value, nothing, nothing, nothing)
        up, down = np.maximum(values, 0.0), np.maximum(-values, 0.0)
        return intervals.plug_in(up, down, self.weights, self.dimension).shifted(known)

    def _values(self, function: Callable[[Floats], Floats], nodes: Floats) -> Floats:
        """Values at every node, (k, m) or (k, m, q), and zero where a Krylov space had ended."""
        alive = ~np.isnan(nodes)
        values = np.stack([function(row) for row in np.where(alive, nodes, 0.0)])
        return np.where(alive.reshape(*alive.shape, *[1] * (values.ndim - 2)), values, 0.0)

    def moments(self, count: int = MOMENTS) -> Average:
        """(1 / n) tr A^p for p = 1 ... count, shape (count,)."""
        powers = np.arange(1, count + 1)
        return self.mean(lambda x: x[..., None] ** powers)

    def grid(self) -> Floats:
        """Points fine enough for `width`, wherever there is mass: the bulk, and around each outlier."""
        nodes = self.nodes[~np.isnan(self.nodes)]
        pieces = [(nodes.min(), nodes.max())] if len(nodes) else []
        pieces += [(value, value) for value in (*self.outliers, *(0.0,) * min(self.zeros, 1))]
        merged: list[tuple[float, float]] = []
        for low, high in sorted((a - REACH * self.width, b + REACH * self.width) for a, b in pieces):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        step = self.width / PER_WIDTH
        # Around a single outlier the quotient is a whole number, which rounding must not push to the next.
        return np.concatenate([np.linspace(a, b, max(math.ceil((b - a) / step - 1e-6), 2) + 1) for a, b in merged])

    def density(self, grid: Floats) -> Average:
        """Density at the points of a grid, smoothed with a Gaussian of `width`; its integral is 1."""
        return self.mean(lambda x: gaussian(grid, x, self.width))

    def log_density(self, grid: Floats) -> LogDensity:
        """Density of positive, and of negative, eigenvalues per decade of magnitude, at log10 |x| in a grid.

        A point is resolved where the nodes around it are no farther apart than the smoothing is wide: there the
        difference between Gauss and anti-Gauss rules bounds the error that is common to all probes.
        """
        radii = 10.0**grid
        resolved = {sign: self._resolved(sign * radii) for sign in (1, -1)}
        both = resolved[1] & resolved[-1]
        first = len(grid) if not both.any() else int(both.argmax())
        below = float(radii[min(first, len(grid) - 1)]) if first else 0.0
        positive, negative = (self._log_density(grid, sign, resolved[sign]) for sign in (1, -1))
        return LogDensity(positive, negative, below, self.share_bounds(-below, below) if below else (0.0, 0.0))

    def _log_density(self, grid: Floats, sign: int, resolved: NDArray[np.bool_]) -> Average:
        def bumps(x: Floats) -> Floats:
            with np.errstate(divide="ignore"):
                return gaussian(grid, np.log10(np.maximum(sign * x, 0.0)), LOG_WIDTH)

        found = self.mean(bumps)
        if self.anti is None:
            return found
        per_probe = np.einsum("km,km...->k...", self.weights, self._values(bumps, self.nodes))
        apart = per_probe.mean(0) - np.einsum("km,km...->...", self.anti[1], self._values(bumps, self.anti[0])) / len(
            self.weights
        )
        sample = per_probe.var(0, ddof=1) / len(per_probe) if len(per_probe) > 1 else 0.0
        variance = np.maximum(found.stderr**2, sample) + apart**2
        bulk = per_probe.mean(0)
        ends = (end + (found.value - bulk) for end in intervals.chi_square(bulk, variance))
        known = (np.where(resolved, x, np.nan) for x in (found.value, np.sqrt(variance), *ends))
        return Average(*known)

    def _resolved(self, points: Floats) -> NDArray[np.bool_]:
        """Whether the nodes around each point are, on average over probes, within two widths of the log smoothing."""
        gaps = np.zeros(len(points))
        for row in self.nodes:
            alive = row[~np.isnan(row)]
            if self._ended(alive):
                continue
            nodes = np.unique([*alive, *self._towards_zero(alive)])
            place = np.searchsorted(nodes, points)
            inside = (place > 0) & (place < len(nodes))
            place = place.clip(1, max(len(nodes) - 1, 1))
            gaps += np.where(inside, nodes[place] - nodes[place - 1], 0.0) if len(nodes) > 1 else 0.0
        found: NDArray[np.bool_] = gaps / len(self.nodes) <= 2 * LOG_WIDTH * math.log(10) * np.abs(points)
        return found

    def _towards_zero(self, nodes: Floats) -> list[float]:
        """How near to zero there may be eigenvalues where all nodes are on one side: a Ritz value is no bound there."""
        low, high = self.support
        if nodes.min() > 0:
            return [max(low, 0.0) if low in self.outliers else 0.0]
        if nodes.max() < 0:
            return [min(high, 0.0) if high in self.outliers else 0.0]
        return []

    def _ended(self, nodes: Floats) -> bool:
        """Whether these nodes of one probe are all eigenvalues that it sees: then its rule is the measure itself."""
        return self.exact or len(nodes) < self.nodes.shape[1] or len(nodes) == self.dimension

    def log_grid(self) -> Floats:
        """Points for `log_density`, over the decades that hold nodes or outliers, at most `DECADES` of them."""
        values = np.abs(np.concatenate([self.nodes[~np.isnan(self.nodes)], self.outliers]))
        values = values[values > self.scale * 10.0**-DECADES]
        if not len(values):
            return np.zeros(0)
        low, high = (math.log10(value) for value in (values.min(), values.max()))
        low, high = low - REACH * LOG_WIDTH, high + REACH * LOG_WIDTH
        return np.linspace(low, high, math.ceil((high - low) / LOG_WIDTH * PER_WIDTH) + 1)

    def cumulative(self, points: Floats) -> Floats:
        """Share of eigenvalues below each point. Half of a node's weight lies below it; between nodes, interpolated.

        A step is no polynomial, and its error does not vanish with more probes: `share_bounds` tells how large it is.
        """
        per_probe = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            alive = ~np.isnan(nodes)
            middle = np.cumsum(weights[alive]) - weights[alive] / 2
            empty = not alive.any()
            per_probe.append(
                np.zeros(len(points)) if empty else np.interp(points, nodes[alive], middle, 0.0, self.bulk)
            )
        known = ((self.outliers[:, None] < points).sum(0) + self.zeros * (points > 0)) / self.n
        found: Floats = np.mean(per_probe, axis=0) + known
        return found

    def share_bounds(self, low: float, high: float) -> tuple[float, float]:
        """Between what the share of eigenvalues in [low, high) lies, at 95 %, for any number of steps.

        The inequalities of Chebyshev, Markov and Stieltjes: the weights of a Gauss rule bracket its measure at the
        nodes. Between two nodes, the share is uncertain by the weights of both; outside of the support, by nothing.
        Each end of the bracket is that of random probes, and is moved by their error.
        """
        if high <= self.support[0] or (low <= self.support[0] and high > self.support[1]):
            return (0.0, 0.0) if high <= self.support[0] else (1.0, 1.0)
        (least_low, most_low), (least_high, most_high) = self._below(low), self._below(high)
        ends = float(np.maximum(least_high - most_low, 0.0).mean()), float((most_high - least_low).mean())
        slack = 0.0
        if ends[1] > 0 and not self.exact:
            share = min(max(0.5, ends[0] / self.bulk), ends[1] / self.bulk)  # the one that varies most
            slack = self.bulk * math.sqrt(2 * max(share * (1 - share), 0.0) / ((self.dimension + 2) * len(self.nodes)))
        zeros = self.zeros if low <= 0 < high else 0
        known = float(((self.outliers >= low) & (self.outliers < high)).sum() + zeros) / self.n
        moved = intervals.Z * slack
        return max(ends[0] - moved, 0.0) + known, min(ends[1] + moved, self.bulk) + known

    def _below(self, point: float) -> tuple[Floats, Floats]:
        """Of each probe, the least and the most weight of the bulk that can lie below a point."""
        low, high = self.support
        whole = self.weights.sum(1)
        if point <= low or point > high:
            return (np.zeros_like(whole),) * 2 if point <= low else (whole, whole)
        least, most = [], []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            alive = ~np.isnan(nodes)
            known = self._ended(nodes[alive])
            below = int((nodes[alive] < point).sum())
            least.append(weights[: below if known else max(below - 1, 0)].sum())
            most.append(weights[: below if known else below + 1].sum())
        return np.array(least), np.array(most)

    def sketch_size(self, products: int) -> int:
        """Vectors of a sketch that leave the least variance of a trace of the bulk from so many products.

        By what remains of the squared norm after the largest Ritz values, over the signs that the sketch leaves.
        """
        magnitudes = np.where(self.weights > 0, np.abs(np.nan_to_num(self.nodes)), 0.0)
        order = np.argsort(-magnitudes, axis=1)
        masses = np.take_along_axis(magnitudes**2 * self.weights, order, axis=1)
        sizes = sorted({round(products * part) for part in SKETCH_PARTS})
        return min(sizes, key=lambda size: float(masses[:, size:].sum()) / (products - 2 * size))

    def share(self, low: float, high: float) -> Average:
        """Share of eigenvalues in [low, high), between its bounds; a fixed error has no standard error."""
        below = self.cumulative(np.array([low, high]))
        ends = (math.nan, math.nan) if self.exact else self.share_bounds(low, high)
        return Average(below[1] - below[0], np.float64(np.nan), *map(np.float64, ends))

    def negative(self, zero: float) -> Average:
        """Share of eigenvalues below -zero. A node that is zero to rounding is a true step: nothing is interpolated."""
        share = self.share(-math.inf, -zero)
        if (np.abs(self.nodes) <= zero).any():
            share = replace(share, value=self.mean(lambda x: (x < -zero).astype(float)).value)
        return share

    def negative_mass(self) -> Average:
        """Share of the sum of |x| that negative eigenvalues hold.

        |x| has a kink at zero, which nodes may not resolve: the difference from the anti-Gauss rules counts as error.
        """
        value, size = self._negative_mass(self.nodes, self.weights)
        if self.anti is None or not size:
            nothing = np.float64(np.nan if self.exact else 0.0)
            return Average(np.float64(value), nothing, nothing, nothing)
        error = self.mean(lambda x: (1 - value) * np.maximum(-x, 0.0) - value * np.maximum(x, 0.0)).stderr / size
        total = math.hypot(float(error), value - self._negative_mass(*self.anti)[0])
        low, high = intervals.normal(value, total)
        return Average(*map(np.float64, (value, total, max(low, 0.0), min(high, 1.0))))

    def _negative_mass(self, nodes: Floats, weights: Floats) -> tuple[float, float]:
        """That share, and the mean of |x|."""
        parts = []
        for sign in (1, -1):
            inside = self._values(lambda x, s=sign: np.maximum(s * x, 0.0), nodes)  # type: ignore[misc]
            known = float(np.maximum(sign * self.outliers, 0.0).sum()) / self.n
            parts.append(float((inside * weights).sum()) / len(nodes) + known)
        size = sum(parts)
        return (parts[1] / size if size else 0.0), size


def gaussian(grid: Floats, centres: Floats, width: float) -> Floats:
    """Normal densities around each centre at each point of the grid, shape (*centres.shape, len(grid))."""
    with np.errstate(over="ignore"):
        z = (grid - centres[..., None]) / width
    density: Floats = np.exp(-z * z / 2) / (width * math.sqrt(2 * math.pi))
    return density


def default_width(nodes: Floats, outliers: Floats, steps: int) -> float:
    """Width of the smoothing: the range of the bulk's nodes over the number of steps, about their distance."""
    alive = nodes[~np.isnan(nodes)]
    scale = float(np.abs(np.concatenate([alive, outliers])).max()) or 1.0
    reach = float(alive.max() - alive.min()) / max(steps, 1) if len(alive) else 0.0
    return reach if reach > NARROWEST * scale else 0.01 * scale  # a bulk of a single value has no range
