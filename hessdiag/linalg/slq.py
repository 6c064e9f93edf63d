"""Spectral density by stochastic Lanczos quadrature, with an error bar at every point and outliers kept exact.

Golub and Meurant, Matrices, Moments and Quadrature (2010); Ubaru, Chen and Saad (2017); Papyan (2019) on outliers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg import estimators
from hessdiag.linalg.lanczos import tridiagonalize
from hessdiag.linalg.operator import SymmetricOperator

Floats = NDArray[np.float64]

MOMENTS = 4
REACH = 5.0  # smoothing widths beyond the outermost node at which a grid ends: 6e-7 of a Gaussian's mass is outside
PER_WIDTH = 6  # grid points per smoothing width
DECADES = 12.0  # below the largest magnitude: where the logarithmic grid ends
NARROWEST = 1e-9  # of the norm: what a grid in floating point can still show
LOG_WIDTH = 0.1  # decades: smoothing of the logarithmic density


@dataclass(frozen=True)
class Average:
    """A mean over probes with its standard error; both numbers, or both arrays."""

    value: Floats
    stderr: Floats


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
    """

    nodes: Floats
    weights: Floats
    outliers: Floats
    n: int
    width: float
    products: int
    zeros: int = 0

    @property
    def bulk(self) -> float:
        """Share of the spectrum that is neither among the outliers nor known to be zero."""
        return 1.0 - (len(self.outliers) + self.zeros) / self.n

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest node or outlier."""
        values = np.concatenate([self.nodes[~np.isnan(self.nodes)], self.outliers, np.zeros(min(self.zeros, 1))])
        return float(values.min()), float(values.max())

    @property
    def scale(self) -> float:
        """The largest magnitude of a node or outlier: the spectral norm, as far as it is known."""
        return max(map(abs, self.support))

    def mean(self, function: Callable[[Floats], Floats]) -> Average:
        """(1 / n) tr f(A) for one function or several: f maps (m,) to (m,) or (m, q).

        Exact in quadrature for polynomials of degree 2 m - 1; the error is that of the random probes.
        """
        per_probe = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):  # one at a time: f may give q numbers each
            alive = ~np.isnan(nodes)
            values = function(nodes[alive])
            per_probe.append(np.tensordot(weights[alive], values, axes=1))
        exact = function(self.outliers).sum(0) / self.n if len(self.outliers) else 0.0
        if self.zeros:
            exact = exact + function(np.zeros(1))[0] * (self.zeros / self.n)
        return _average(np.array(per_probe) + exact)

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

    def log_density(self, grid: Floats) -> tuple[Average, Average]:
        """Density of positive, and of negative, eigenvalues per decade of magnitude, at log10 |x| in a grid.

        Magnitudes between two nodes next to zero are beyond the resolution of any Lanczos quadrature.
        """
        with np.errstate(divide="ignore"):
            positive, negative = (
                self.mean(lambda x, s=sign: gaussian(grid, np.log10(np.maximum(s * x, 0.0)), LOG_WIDTH))  # type: ignore[misc]
                for sign in (1, -1)
            )
        return positive, negative

    def log_grid(self) -> Floats:
        """Points for `log_density`, over the decades that hold nodes or outliers, at most `DECADES` of them."""
        values = np.abs(np.concatenate([self.nodes[~np.isnan(self.nodes)], self.outliers]))
        values = values[values > self.scale * 10.0**-DECADES]
        if not len(values):
            return np.zeros(0)
        low, high = (math.log10(value) for value in (values.min(), values.max()))
        low, high = low - REACH * LOG_WIDTH, high + REACH * LOG_WIDTH
        return np.linspace(low, high, math.ceil((high - low) / LOG_WIDTH * PER_WIDTH) + 1)

    def cumulative(self, points: Floats) -> Average:
        """Share of eigenvalues below each point. Half of a node's weight lies below it; between nodes, interpolated."""
        per_probe = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            alive = ~np.isnan(nodes)
            middle = np.cumsum(weights[alive]) - weights[alive] / 2
            empty = not alive.any()
            per_probe.append(
                np.zeros(len(points)) if empty else np.interp(points, nodes[alive], middle, 0.0, self.bulk)
            )
        exact = ((self.outliers[:, None] < points).sum(0) + self.zeros * (points > 0)) / self.n
        return _average(np.array(per_probe) + exact)

    def cumulative_bounds(self, point: float) -> tuple[float, float]:
        """Between what the share below a point lies, given the same probes and any number of steps.

        The inequalities of Chebyshev, Markov and Stieltjes: the weights of a Gauss rule bracket the measure at its
        nodes. Between two nodes, the share is uncertain by the weights of both; outside of the support, by nothing.
        """
        low, high = self.support
        if point <= low or point > high:
            return (0.0, 0.0) if point <= low else (1.0, 1.0)
        least, most = [], []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            alive = ~np.isnan(nodes)
            exhausted = not alive.all()  # then the rule is exact
            below = int((nodes[alive] < point).sum())
            least.append(weights[: below if exhausted else max(below - 1, 0)].sum())
            most.append(weights[: below if exhausted else below + 1].sum())
        exact = float((self.outliers < point).sum() + self.zeros * (point > 0)) / self.n
        return float(np.mean(least)) + exact, float(np.mean(most)) + exact

    def share(self, low: float, high: float) -> Average:
        """Share of eigenvalues in [low, high); the error also counts what the quadrature cannot resolve at both ends.

        A step is no polynomial: unlike that of a smooth average, its error does not vanish with more probes.
        """
        below = self.cumulative(np.array([low, high]))
        brackets = [np.subtract(*self.cumulative_bounds(end)[::-1]) for end in (low, high)]
        stderr = np.hypot(np.hypot(*below.stderr), sum(brackets) / math.sqrt(12))  # as if uniform within a bracket
        return Average(below.value[1] - below.value[0], stderr)

    def negative(self, zero: float) -> Average:
        """Share of eigenvalues below -zero. A node that is zero to rounding is a true step: nothing is interpolated."""
        share = self.share(-math.inf, -zero)
        if (np.abs(self.nodes) <= zero).any():
            return Average(self.mean(lambda x: (x < -zero).astype(float)).value, share.stderr)
        return share

    def negative_mass(self) -> Average:
        """Share of the sum of |x| that negative eigenvalues hold, with its error by leaving out one probe at a time."""
        alive = ~np.isnan(self.nodes)
        nodes = np.where(alive, self.nodes, 0.0)
        exact = np.array([np.maximum(sign * self.outliers, 0.0).sum() / self.n for sign in (1, -1)])
        sums = np.stack([(np.maximum(sign * nodes, 0.0) * self.weights).sum(1) for sign in (1, -1)], axis=1) + exact
        share, k = _share(sums.mean(0)), len(sums)
        if k < 2:
            return Average(np.float64(share), np.float64(np.nan))
        left = np.array([_share(np.delete(sums, index, axis=0).mean(0)) for index in range(k)])
        stderr = math.sqrt((k - 1) / k * ((left - left.mean()) ** 2).sum())
        return Average(np.float64(share), np.float64(stderr))


def spectral_density(
    operator: SymmetricOperator,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int | None = None,
    deflate: tuple[Tensor, Tensor] | None = None,
    zeros: int = 0,
    width: float | None = None,
    at_once: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Density:
    """Spectral density by Lanczos from random vectors, all of them in lockstep.

    Args:
        operator: Symmetric, (n, n).
        probes: k random vectors, uniform on the sphere.
        steps: m Lanczos steps from each.
        seed: `None` for fresh randomness.
        deflate: Converged eigenvalues (r,) and orthonormal eigenvectors (n, r). The probes are orthogonal to them, and
            they return as point masses 1 / n: nothing of an outlier depends on chance.
        zeros: Rows and columns of zeros that the operator leaves out: the density is that of n + zeros eigenvalues.
        width: Of the Gaussian that smooths. Default: the bulk's range over the steps, the distance of nodes.
        at_once: Probes per lockstep, where the bases of all do not fit: they hold k (m + 1) n numbers.
        progress: Called with the number of probes done. A keyboard interrupt after the second keeps what is there.

    Returns:
        The quadratures, and all that follows from them.

    >>> A = torch.diag(torch.linspace(0, 1, 200, dtype=torch.float64))
    >>> density = spectral_density(A, probes=20, steps=30, seed=0)
    >>> density.moments(2).value.round(1)
    array([0.5, 0.3])
    """
    n = operator.shape[0]
    vectors = deflate[1] if deflate is not None else torch.zeros(n, 0, dtype=operator.dtype)
    outliers = deflate[0].double().cpu().numpy() if deflate is not None else np.zeros(0)
    free = estimators.Deflated(operator, vectors)
    starts = free.project(free.project(estimators.probes(operator, probes, seed)))
    bulk = 1.0 - (len(outliers) + zeros) / (n + zeros)
    steps = min(steps, n - len(outliers))
    nodes, weights = np.full((probes, steps), np.nan), np.zeros((probes, steps))
    products = done = 0
    try:
        for group in torch.split(starts, at_once or probes, dim=1) if steps else ():
            tridiagonals = tridiagonalize(free if len(outliers) else operator, group, steps)
            products += int(tridiagonals.steps.sum())
            for index in range(group.shape[1]):
                theta, vectors = torch.linalg.eigh(tridiagonals.matrix(index))
                nodes[done, : len(theta)] = theta.numpy()
                weights[done, : len(theta)] = bulk * vectors[0].square().numpy()
                done += 1
            progress(done)
    except KeyboardInterrupt:
        if done < 2:
            raise
        nodes, weights = nodes[:done], weights[:done]
    width = width or default_width(nodes, outliers, steps)
    return Density(nodes, weights, outliers, n + zeros, width, products, zeros)


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


def _share(sums: Floats) -> float:
    positive, negative = sums
    return float(negative / (positive + negative)) if positive + negative else 0.0


def _average(per_probe: Floats) -> Average:
    k = len(per_probe)
    size = np.abs(per_probe).max(0)
    size = np.where(size > 0, size, 1.0)  # squares of small numbers would vanish
    stderr = size * (per_probe / size).std(0, ddof=1) / math.sqrt(k) if k > 1 else np.full(per_probe.shape[1:], np.nan)
    return Average(per_probe.mean(0), stderr)
