"""A spectrum from products: extreme eigenpairs to their residuals, the rest by quadrature from random vectors."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.support import Restricted
from hessdiag.linalg import estimators, quadrature
from hessdiag.linalg.densities import Density
from hessdiag.linalg.eigenpairs import Eigenpairs
from hessdiag.linalg.eigensolver import BLOCK, extreme_eigenpairs
from hessdiag.linalg.estimators import Estimate
from hessdiag.machine.processes import together
from hessdiag.questions.common.certificate import OF_RITZ_VECTORS, Witness
from hessdiag.questions.common.operators import Products
from hessdiag.questions.common.result import Status
from hessdiag.questions.common.runs.forecast import Quadratures
from hessdiag.questions.common.runs.outlay import Quadrature
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.spectrum import curves
from hessdiag.questions.spectrum.found import End, Found, zero
from hessdiag.questions.spectrum.result import Outlier
from hessdiag.statistics import intervals
from hessdiag.statistics.intervals import Average, Estimated, EstimatedNumber

TOLERANCE = 1e-3  # relative residual of the extreme pairs


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is sampled, and how.

    Attributes:
        matrix: Without its rows of zeros, (m, m).
        zeros: How many they are.
        semidefinite: Whether nothing can be below zero.
        plan: How vectors are held.
        probes: Random vectors.
        steps: Lanczos steps from each.
        seed: Of the probes.
        pieces: What is kept of it.
        report: Told how far it is.
        where: Over which processes, for what is said.
    """

    matrix: Products | Restricted
    zeros: int
    semidefinite: bool
    plan: Quadrature
    probes: int
    steps: int
    seed: int
    pieces: Pieces
    report: Progress
    where: str = ""

    @property
    def products(self) -> int:
        """Of the probes; the extreme pairs take as many at most."""
        return self.probes * self.steps


def sampled(asked: Sampling) -> Found:
    """Extreme eigenpairs, density, trace and norm; after an interrupt, those that were complete by then."""
    task = Quadratures(asked.probes, asked.steps, 2 * asked.plan.pairs)
    pairs = _extreme_pairs(asked, task)
    if pairs.interrupted:
        return _stopped(asked, pairs)
    done = pairs.converged
    values, vectors = pairs.values[done], pairs.vectors[:, done.to(pairs.vectors.device)]
    try:
        density = _density(asked, task, values, vectors)
    except KeyboardInterrupt:  # before two probes were done, from which an error can be told
        if together():
            raise
        return _stopped(asked, pairs)
    interrupted = len(density.nodes) < asked.probes
    try:
        trace = _trace(asked, task, density, vectors).shifted(float(values.sum()))
    except KeyboardInterrupt:
        if together():
            raise
        interrupted = True
        trace = _of_moment(density, 1)
    # |A|_F^2 = |P A P|^2 + 2 |P A U|^2 + |U'A U|^2, and the residuals are the columns of P A U.
    square = _of_moment(density, 2, 2 * float(pairs.residuals[done].square().sum()))
    status: Status = "interrupted" if interrupted else "ok" if _ends_found(pairs, density) else "inexact"
    rounding = zero(asked.matrix, density.scale)
    low, high = density.support
    loose = pairs.values[~done].tolist()  # left in the density, which may not reach as far
    least = min(pairs.ritz_range[0], float(np.nanmin(density.nodes, initial=math.inf)))
    return Found(
        probes=len(density.nodes),
        steps=density.nodes.shape[1],
        lowest=End(min(low, *loose, math.inf), is_bound=not (pairs.lowest and bool(done[0]))),
        highest=End(max(high, *loose, -math.inf), is_bound=not bool(done[-1])),
        witness=Witness(least, OF_RITZ_VECTORS, rounding),
        outliers=_outliers(pairs),
        hvps=pairs.products + density.products + trace.products,
        status=status,
        density=density,
        trace=Estimated(trace.value, trace.stderr, trace.interval),
        frobenius=_root(square),
        negative_fraction=curves.estimated(density.negative(rounding)),
        negative_mass=curves.estimated(density.negative_mass()),
        near_zero_fraction=curves.near_zero(density),
    )


def _extreme_pairs(asked: Sampling, task: Quadratures) -> Eigenpairs:
    """Eigenpairs at both ends, at one where nothing can be below zero."""
    matrix, plan, pieces, most = asked.matrix, asked.plan, asked.pieces, asked.products
    n = matrix.shape[0]
    wide = min(plan.ends.size, most + BLOCK) * (2 if plan.ends.images else 1)  # each product adds a vector
    disk = pieces.said(wide * n * matrix.dtype.itemsize + 32 * most, asked.probes + 2, anew=True)
    each = f"{asked.probes} x {asked.steps} products"
    asked.report(0, most, f"{n:,} parameters: {each}, after the extreme eigenpairs{asked.where}{disk}")
    lowest = 0 if asked.semidefinite else plan.pairs
    wanted = lowest + plan.pairs
    pairs = extreme_eigenpairs(
        matrix,
        lowest=lowest,
        highest=plan.pairs,
        tol=TOLERANCE,
        max_basis=plan.ends.size,
        images=plan.ends.images,
        kept=pieces.state("extreme eigenpairs") if pieces.kept else None,
        max_products=most,
        foresee=task.foresee,
        progress=lambda spent, found: asked.report(
            min(spent, most), most, f"at most products ({found} of {wanted} extreme pairs found)"
        ),
        seed=asked.seed,
        precision=matrix.precision,
    )
    if not pairs.interrupted:
        asked.report(0, most, f"{each} for the rest of the spectrum")
    return pairs


def _density(asked: Sampling, task: Quadratures, values: Tensor, vectors: Tensor) -> Density:
    """The rest by quadrature, with the converged pairs taken out and put back."""
    report, most = asked.report, asked.products
    task.taken = len(values)
    return quadrature.spectral_density(
        asked.matrix,
        probes=asked.probes,
        steps=asked.steps,
        seed=asked.seed + 1,
        deflate=(values, vectors),
        zeros=asked.zeros,
        at_once=asked.plan.at_once,
        keep=asked.pieces.get,
        progress=lambda count: report(task.finished(count), most, "products"),
        stepped=lambda vectors, step: report(task.stepped(vectors, step), most, "products"),
    )


def _trace(asked: Sampling, task: Quadratures, density: Density, vectors: Tensor) -> Estimate:
    """The trace of what the eigenvectors leave, kept as a piece."""
    counted = task.signs

    def traced(products: int) -> None:
        task.traced(products)
        asked.report(products, counted, "products for the trace")

    def numbers() -> dict[str, NDArray[Any]]:
        found = estimators.trace(left, counted, asked.seed + 2, sketch=sketch, progress=traced)
        return {"numbers": np.array([found.value, found.stderr, *found.interval]), "products": np.array(found.products)}

    left, sketch = estimators.Deflated(asked.matrix, vectors), density.sketch_size(counted)
    arrays = asked.pieces.get("trace", numbers)
    value, stderr, low, high = arrays["numbers"].tolist()
    return Estimate(value, stderr, (low, high), int(arrays["products"]))


def _of_moment(density: Density, order: int, more: float = 0.0) -> Estimate:
    """A moment times n, and a known number: the trace, or the squared norm, at no further product."""
    found: Average = density.moments(2).shifted(more / density.n)
    index, n = order - 1, density.n
    low, high = (n * float(end[index]) for end in (found.low, found.high))
    return Estimate(n * float(found.value[index]), n * float(found.stderr[index]), (low, high), 0)


def _root(square: Estimate) -> EstimatedNumber:
    """The norm from its square, by the delta method."""
    norm = math.sqrt(max(square.value, 0.0))
    return Estimated(norm, square.stderr / (2 * norm) if norm else 0.0, intervals.root(square.interval))


def _stopped(asked: Sampling, pairs: Eigenpairs) -> Found:
    """What the extreme eigenpairs alone tell after an interrupt: how far the spectrum reaches at least, and no more."""
    low, high = pairs.ritz_range
    values = [0.0] * bool(asked.zeros) + [low, high]
    return Found(
        lowest=End(min(values), is_bound=not (pairs.lowest and bool(pairs.converged[0]))),
        highest=End(max(values), is_bound=not (pairs.highest and bool(pairs.converged[-1]))),
        witness=Witness(low, OF_RITZ_VECTORS, zero(asked.matrix, max(abs(low), abs(high)))),
        outliers=_outliers(pairs),
        hvps=pairs.products,
    )


def _outliers(pairs: Eigenpairs) -> tuple[Outlier, ...]:
    return tuple(
        Outlier(
            eigenvalue=float(pairs.values[index]),
            residual=float(pairs.residuals[index]),
            converged=bool(pairs.converged[index]),
            bound=pairs.bound(index),
        )
        for index in range(len(pairs.values))
    )


def _ends_found(pairs: Eigenpairs, density: Density) -> bool:
    """Whether both ends are known to within the width of the smoothing."""
    ends = [0] * bool(pairs.lowest) + [len(pairs.values) - 1]
    return all(bool(pairs.converged[end]) or float(pairs.residuals[end]) <= density.width for end in ends)
