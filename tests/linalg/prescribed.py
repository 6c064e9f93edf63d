"""How often intervals of a spectrum hold the truth, over many groups of probes and prescribed spectra."""

import math
from dataclasses import replace

import numpy as np
import torch

from hessdiag.linalg import densities, estimators
from hessdiag.linalg.densities import Density
from hessdiag.linalg.quadrature import spectral_density

N, STEPS, DEFLATED = 400, 30, 10


def spectra():
    """Bulks of several kinds: flat, edged, decaying, stepped, like those of networks, of mixed signs."""
    i, rng = np.arange(1, N + 1), np.random.default_rng(7)
    signs = np.where(rng.random(N) < 0.3, -1, 1)
    return {
        "uniform": np.linspace(-1, 2, N),
        "semicircle": 2 * np.cos(math.pi * (i - 0.5) / N),
        "1/i, signs": signs / i,
        "1/i^2": 1.0 / i**2,
        "0.9^i": 0.9**i,
        "step": np.r_[np.ones(N // 20), 1e-3 * np.ones(N - N // 20)],
        "like a network's": np.r_[10 * np.exp(-np.arange(20) / 4), rng.normal(0, 0.05, N - 20)],
        "lognormal, signs": np.exp(rng.normal(0, 1.5, N)) * signs,
    }


class Diagonal:
    """A diagonal matrix, as an operator."""

    def __init__(self, values):
        self.values = torch.tensor(np.sort(values))
        self.shape, self.dtype, self.device = (N, N), torch.float64, torch.device("cpu")

    def __matmul__(self, vectors):
        return self.values.reshape(-1, *[1] * (vectors.ndim - 1)) * vectors


def pool(values, probes, *, deflated=True, seed=0):
    """One density of many probes; its groups are what runs of few probes would have found."""
    operator = Diagonal(values)
    ends = [*range(DEFLATED // 2), *range(N - DEFLATED // 2, N)] if deflated else []
    vectors = torch.eye(N, dtype=torch.float64)[:, ends]
    deflate = (operator.values[ends], vectors) if deflated else None
    return spectral_density(operator, probes=probes, steps=STEPS, seed=seed, deflate=deflate, at_once=500)


def groups(whole: Density, size, count, seed=0):
    """Densities of some probes each: disjoint where there are enough, else drawn anew."""
    rng, have = np.random.default_rng(seed), len(whole.nodes)
    for index in range(count):
        own = slice(index * size, (index + 1) * size) if size * count <= have else rng.choice(have, size, replace=False)
        yield replace(
            whole,
            nodes=whole.nodes[own],
            weights=whole.weights[own],
            anti=(whole.anti[0][own], whole.anti[1][own]),
            width=densities.default_width(whole.nodes[own], whole.outliers, STEPS),
        )


def inside(found, truth):
    """Where a truth lies within an interval, rounding forgiven."""
    slack = 1e-9 * np.abs(truth)
    return (found.low - slack <= truth) & (truth <= found.high + slack)


def rates(values, probes, *, deflated=True, pooled=4000, count=400, curves=100):
    """Coverage in percent of everything that a spectrum prints, by name; log density where it is resolved."""
    values = np.sort(values)
    hits = {name: [] for name in ("moment 1", "moment 2", "moment 3", "moment 4", "negative mass")}
    hits |= {name: [] for name in ("density", "log density", "negative fraction", "near zero", "unresolved")}
    powers = [np.mean(values**p) for p in (1, 2, 3, 4)]
    mass = -values[values < 0].sum() / np.abs(values).sum()
    small = 0.01 * np.abs(values).max()
    for index, found in enumerate(groups(pool(values, pooled, deflated=deflated), probes, count)):
        for name, hit in zip(hits, inside(found.moments(), np.array(powers)), strict=False):
            hits[name].append(hit)
        if found.negative_mass().high > 0:
            hits["negative mass"].append(inside(found.negative_mass(), mass))
        hits["negative fraction"].append(inside(found.share(-math.inf, 0.0), (values < 0).mean()))
        hits["near zero"].append(inside(found.share(-small, small), (np.abs(values) < small).mean()))
        if index >= curves:
            continue
        grid = found.grid()
        truth = densities.gaussian(grid, values, found.width).mean(0)
        seen = truth > 1 / (N * found.width * math.sqrt(2 * math.pi))
        hits["density"] += inside(found.density(grid), truth)[seen].tolist()
        decades = found.log_grid()
        curve = found.log_density(decades)
        for sign, part in ((1, curve.positive), (-1, curve.negative)):
            with np.errstate(divide="ignore"):
                logs = np.log10(np.maximum(sign * values, 0.0))
            truth = densities.gaussian(decades, logs, densities.LOG_WIDTH).mean(0)
            seen = (truth > 1 / (N * densities.LOG_WIDTH * math.sqrt(2 * math.pi))) & ~np.isnan(part.low)
            hits["log density"] += inside(part, truth)[seen].tolist()
        low, high = curve.unresolved_share
        hits["unresolved"].append(low - 1e-12 <= (np.abs(values) < curve.unresolved_below).mean() <= high + 1e-12)
    return {name: 100 * float(np.mean(hit)) if hit else math.nan for name, hit in hits.items()}


def trace_rate(values, products, *, deflated=True, count=400, seed=0):
    """Coverage in percent of the trace's interval in a random basis, with the sketch that ten probes advise."""
    values = np.sort(values)
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(N, N, generator=generator, dtype=torch.float64))[0]
    keep = np.r_[DEFLATED // 2 : N - DEFLATED // 2] if deflated else np.arange(N)
    A = (Q[:, keep] * torch.tensor(values[keep])) @ Q[:, keep].T
    sketch = next(groups(pool(values, 10, deflated=deflated), 10, 1)).sketch_size(products)
    truth, hits = float(values[keep].sum()), 0
    for number in range(count):
        low, high = estimators.trace(A, products, number, sketch=sketch).interval
        hits += low <= truth <= high
    return 100 * hits / count
