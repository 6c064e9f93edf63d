"""What is read of one preconditioner: condition numbers, effective dimension, iterations of conjugate gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.preconditioners.form import Preconditioner
from hessdiag.fields import Interval
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.questions.common.operators import Products
from hessdiag.questions.precondition.result import Preconditioned
from hessdiag.questions.precondition.system import Pairs, System, Whitened, cg_iterations, ends, top

ENDS = 24  # Lanczos steps from approximate extreme eigenvectors
QUADRATURE_STEPS = 40  # of Lanczos, for an effective dimension
CONVERGED = 1e-3  # residual of an extreme eigenvalue of a preconditioned system, relative
LOST = 0.3  # of the damping: with more of the negative part unbent, iterations would be off by a fifth and more
MOST = 500  # Lanczos steps of the search for extreme eigenvalues
MOST_CG = 1_000  # iterations of conjugate gradients

Floats = NDArray[np.float64]
Bend = Callable[[Tensor], Tensor]
POSITIVE: Bend = partial(torch.clamp, min=0.0)
ABSOLUTE: Bend = torch.abs


@dataclass(frozen=True)
class Bench:
    """What preconditioners are measured on.

    Attributes:
        H: The Hessian, by products or whole.
        pairs: Its eigenpairs.
        gradient: g, (N,), float64.
        damping: Relative to the largest magnitude of an eigenvalue.
        tol: Of conjugate gradients.
        probes: Random vectors of an effective dimension, where it is estimated.
        most: Vectors of a Krylov space that memory holds.
        seed: Of all that is random.
    """

    H: Products | Tensor
    pairs: Pairs
    gradient: Tensor
    damping: float
    tol: float
    probes: int
    most: int
    seed: int

    @property
    def dense(self) -> bool:
        """Whether all eigenvalues are known."""
        return isinstance(self.H, Tensor)

    def product(self, vectors: Tensor) -> Tensor:
        """H V in float64."""
        return (self.H @ vectors.to(self.H.dtype)).double()

    @property
    def shift(self) -> float:
        """What is added, mu."""
        return self.damping * self.pairs.scale

    @property
    def slack(self) -> float:
        """How far what is not resolved can raise A, relatively: A_found <= A <= (1 + slack) A_found."""
        return self.pairs.unresolved / self.shift

    @cached_property
    def negative(self) -> bool:
        """Whether H has negative eigenvalues beyond rounding."""
        return bool(self.pairs.values.min() < -1e-12 * self.pairs.scale)

    def system(self, bend: Bend) -> System:
        """The damped curvature."""
        return System(self.pairs, bend, self.shift)


def reading(bench: Bench, made: Callable[[Bend], Preconditioner]) -> tuple[Preconditioned, int]:
    """All numbers of one preconditioner, and products with H that they took.

    Args:
        bench: What it is measured on.
        made: The preconditioner, from what is done to eigenvalues of H's own blocks.
    """
    P = made(POSITIVE)
    own = _condition(bench, P, POSITIVE)
    turned = _condition(bench, made(ABSOLUTE), ABSOLUTE) if bench.negative else own
    dimension, stderr, products = _effective_dimension(bench, P)
    iterations, unfinished, more = _iterations(bench, P, own.floor)
    row = Preconditioned(
        name=P.name,
        numbers_held=P.held,
        condition=own.value,
        condition_interval=own.interval,
        condition_absolute=turned.value,
        condition_absolute_interval=turned.interval,
        effective_dimension=dimension,
        effective_dimension_stderr=stderr,
        cg_iterations=iterations,
        cg_unfinished=unfinished,
        notes=P.notes,
    )
    return row, 0 if bench.dense else products + more + ENDS * (1 + bench.negative)


def _whitened(bench: Bench, P: Preconditioner, product: Callable[[Tensor], Tensor], exponent: float = -0.5) -> Whitened:
    """The preconditioned matrix; square roots of second moments are brought to the Frobenius norm of H."""
    own = P.frobenius
    scale = float(bench.pairs.values.norm()) / own if P.root and own > 0 else 1.0
    gradient = bench.gradient
    return Whitened(product, P, len(gradient), gradient.device, bench.shift, scale, exponent)


def _spectrum(operator: Whitened, matrix: Tensor) -> Tensor:
    """All eigenvalues of a preconditioned dense matrix."""
    found = operator.root(operator.root(matrix).T)
    values: Tensor = torch.linalg.eigvalsh((found + found.T) / 2)
    return values


@dataclass(frozen=True)
class Condition:
    """A condition number; between what it is, where that is not exact; and a lower bound of the eigenvalues."""

    value: float
    interval: Interval | None
    floor: float


def _condition(bench: Bench, P: Preconditioner, bend: Bend) -> Condition:
    """Largest over smallest eigenvalue of the preconditioned system.

    What was found of H bounds A from below, A_found <= A, and so the smallest eigenvalue: as the largest of the
    inverse, by Lanczos. From there and from the largest of A_found, a few steps with H itself have Ritz values inside
    of both ends.
    """
    A = bench.system(bend)
    own = _whitened(bench, P, A.__matmul__)
    if bench.dense:
        values = _spectrum(own, A.matrix)
        return Condition(float(values[-1] / values[0]), None, float(values[0]))
    limit = min(MOST, bench.most)
    inverse, lowest = top(_whitened(bench, P, A.solve, 0.5), bench.seed, CONVERGED, limit)
    high, highest = top(own, bench.seed, CONVERGED, limit)
    coupled = min(bench.pairs.coupling / bench.shift, 1.0)
    floor = (1 - coupled) / (inverse * (1 + CONVERGED))
    seen = ends(_whitened(bench, P, A.through(bench.product)), lowest + highest, ENDS)
    # What of the negative part was not found, and is not bent, is at most that beside the damping.
    lost = (2 if bend is ABSOLUTE else 1) * abs(bench.pairs.beyond[0]) / bench.shift
    ceiling, lowest_seen = high * (1 + CONVERGED) * (1 + bench.slack + coupled), seen.lowest + lost
    if lost < 1:
        ceiling = min(ceiling, (seen.highest + seen.residual) / (1 - lost))
        lowest_seen = min(lowest_seen, seen.lowest / (1 - lost))
    least = seen.highest / max(lowest_seen, floor)
    most = ceiling / floor if floor > 0 else math.inf
    interval = max(least, 1.0), max(most, least, 1.0)
    likely = seen.highest * inverse if lost > LOST or seen.lowest <= 0 else seen.highest / seen.lowest
    return Condition(min(max(likely, interval[0]), interval[1]), interval, floor)


def _effective_dimension(bench: Bench, P: Preconditioner) -> tuple[float, float | None, int]:
    """Sum of m / (m + d) over positive eigenvalues m of the preconditioned Hessian; with an error where sampled.

    To that of chance comes what the steps do not resolve: the distance of Gauss and anti-Gauss rules (Laurie 1996).
    """
    own = _whitened(bench, P, bench.product)
    if isinstance(bench.H, Tensor):
        values = _spectrum(own, bench.H)
        return float(_curved(values.cpu().numpy(), bench.damping * float(values[-1])).sum()), None, 0
    density = spectral_density(own, probes=bench.probes, steps=QUADRATURE_STEPS, seed=bench.seed)
    found = density.mean(lambda x: _curved(x, bench.damping * density.support[1]))
    assert density.anti is not None
    nodes, weights = (np.nan_to_num(part) for part in density.anti)
    apart = float(found.value) - float(
        (weights * _curved(nodes, bench.damping * density.support[1])).sum() / len(weights)
    )
    return density.n * float(found.value), density.n * math.hypot(float(found.stderr), apart), density.products


def _curved(values: Floats, least: float) -> Floats:
    """Of eigenvalues m: m / (m + d), and 0 for what is not positive."""
    positive = np.maximum(values, 0.0)
    return positive / (positive + least) if least > 0 else 0.0 * positive


def _iterations(bench: Bench, P: Preconditioner, floor: float) -> tuple[int | None, bool, int]:
    """Of conjugate gradients for A s = -g, whether they are more, and products."""
    size = float(bench.gradient.norm())
    if not size:
        return None, False, 0
    A, g = bench.system(POSITIVE), bench.gradient / size
    if bench.dense:
        own = _whitened(bench, P, A.matrix.__matmul__)
        return cg_iterations(own, own.root(g), bench.tol, MOST_CG, floor=floor, best=float(g @ A.solve(g)))
    lost = abs(bench.pairs.beyond[0]) / bench.shift
    if lost > LOST:
        return None, False, 0
    own = _whitened(bench, P, A.through(bench.product))
    return cg_iterations(own, own.root(g), bench.tol, MOST_CG, floor=floor * (1 - lost))
