"""The damped systems that preconditioners are measured by, from eigenpairs of the Hessian."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.curvature.preconditioners.form import Preconditioner, power
from hessdiag.linalg.eigenpairs import decomposed
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import tridiagonalize

TAIL = 0.01  # of the tolerance's square: what may be unknown of the whole decrease
CONVERGED = 0.03  # of the damping: a Ritz vector with a larger residual is left out


@dataclass(frozen=True)
class Pairs:
    """Eigenpairs of H: all of them, or those that were found.

    Attributes:
        values: (k,), float64.
        vectors: (N, k), float64, orthonormal.
        beyond: No other eigenvalue is lower or higher than these; (0, 0) where they are all.
        coupling: H is block diagonal in their space and its complement but for something of that norm; 0 where exact.
    """

    values: Tensor
    vectors: Tensor
    beyond: tuple[float, float] = (0.0, 0.0)
    coupling: float = 0.0

    @property
    def scale(self) -> float:
        """The largest magnitude."""
        return float(self.values.abs().max()) if len(self.values) else 0.0

    @property
    def unresolved(self) -> float:
        """The largest magnitude that another eigenvalue may have."""
        return max(map(abs, self.beyond))


def every(matrix: Tensor) -> Pairs:
    """All eigenpairs of a dense matrix, by LAPACK in float64."""
    return Pairs(*decomposed(matrix.double()))


def found(values: Tensor, vectors: Tensor, residuals: Tensor, damping: float) -> Pairs:
    """The Ritz pairs that have converged beside the damping, and how far others may reach.

    Args:
        values: Ritz values, (m,), float64.
        vectors: Ritz vectors, (N, m).
        residuals: Of the pairs, (m,).
        damping: Relative to the largest magnitude.
    """
    allowed = CONVERGED * damping * float(values.abs().max())
    kept = residuals <= allowed
    kept[[0, -1]] = True  # the ends, whatever they are
    low = min([0.0, *(values - residuals)[~kept].tolist()])
    high = max([0.0, *(values + residuals)[~kept].tolist()])
    coupling = float(residuals[kept].norm())  # the residuals of one Lanczos run are all along one vector
    place = vectors.device
    return Pairs(values[kept].to(place), vectors[:, kept.to(place)].double(), (low, high), coupling)


@dataclass(frozen=True)
class System:
    """A = bend(H) + mu I, positive definite, as an operator (N, N): bend is the positive part, or the absolute value.

    Attributes:
        pairs: Of H; where they are not all, the rest of bend(H) is taken for zero.
        bend: Of eigenvalues.
        shift: mu.
    """

    pairs: Pairs
    bend: Callable[[Tensor], Tensor]
    shift: float

    @property
    def lifted(self) -> Tensor:
        """What bending adds to each eigenvalue, (k,)."""
        return self.bend(self.pairs.values) - self.pairs.values

    def through(self, H: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Products with A by way of products with H itself: only what was found of its negative part is bent."""
        V, lifted = self.pairs.vectors, self.lifted
        bent = lifted > 0
        V, lifted = V[:, bent], lifted[bent]
        return lambda vectors: H(vectors) + self.shift * vectors + V @ _rows(lifted, V.T @ vectors)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return (len(self.pairs.vectors), len(self.pairs.vectors))

    @cached_property
    def matrix(self) -> Tensor:
        """A itself, (N, N)."""
        V, bent = self.pairs.vectors, self.bend(self.pairs.values)
        return (V * bent) @ V.T + self.shift * torch.eye(len(V), dtype=V.dtype, device=V.device)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """A V."""
        V, bent = self.pairs.vectors, self.bend(self.pairs.values)
        return self.shift * vectors + V @ _rows(bent, V.T @ vectors)

    def solve(self, vectors: Tensor) -> Tensor:
        """A^-1 V."""
        V, bent = self.pairs.vectors, self.bend(self.pairs.values)
        inverse = 1 / (bent + self.shift) - 1 / self.shift
        return vectors / self.shift + V @ _rows(inverse, V.T @ vectors)


def _rows(scales: Tensor, rows: Tensor) -> Tensor:
    return scales * rows if rows.ndim == 1 else scales[:, None] * rows


@dataclass(frozen=True)
class Whitened:
    """(cP + mu I)^(-1/2) A (cP + mu I)^(-1/2) as an operator, or the inverse of that, or the same of any A.

    Attributes:
        product: With A, or with its inverse.
        P: The preconditioner.
        shift: mu.
        scale: c.
        exponent: -1/2 for A, 1/2 for its inverse.
    """

    product: Callable[[Tensor], Tensor]
    P: Preconditioner
    size: int
    device: torch.device
    shift: float
    scale: float
    exponent: float = -0.5
    dtype: torch.dtype = torch.float64

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return (self.size, self.size)

    @cached_property
    def root(self) -> Callable[[Tensor], Tensor]:
        """(cP + mu I)^exponent, as what multiplies V."""
        return self.P.of(power(self.exponent, self.shift, self.scale))

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with V."""
        return self.root(self.product(self.root(vectors.double())))


def top(operator: SymmetricOperator, seed: int, tol: float, most: int) -> tuple[float, Tensor]:
    """The largest eigenvalue of a positive definite operator and its vector, by Lanczos to a relative residual."""
    generator = torch.Generator().manual_seed(seed)
    n = operator.shape[0]
    start = torch.randn(n, generator=generator, dtype=torch.float64)
    steps = min(16, n, most)
    while True:
        run = tridiagonalize(operator, start, steps, keep_basis=True)
        values, vectors = torch.linalg.eigh(run.matrix())
        taken = len(values)
        residual = float(run.betas[0, taken - 1]) * abs(float(vectors[-1, -1]))
        if residual <= tol * float(values[-1]) or steps >= min(most, n) or taken < steps:
            assert run.basis is not None
            return float(values[-1]), run.basis[0, :, :taken] @ vectors[:, -1].to(run.basis)
        steps = min(2 * steps, most, n)


@dataclass(frozen=True)
class Ends:
    """Of a positive definite operator's eigenvalues: bounds by Ritz values of one Krylov space.

    Attributes:
        lowest: At or above the smallest.
        highest: At or below the largest.
        residual: Of the latter: there is an eigenvalue within that distance.
    """

    lowest: float
    highest: float
    residual: float


def ends(operator: SymmetricOperator, start: Tensor, steps: int) -> Ends:
    """Both ends of the spectrum, as far as a few Lanczos steps from a vector see them."""
    run = tridiagonalize(operator, start, steps)
    values, vectors = torch.linalg.eigh(run.matrix())
    residual = float(run.betas[0, len(values) - 1]) * abs(float(vectors[-1, -1]))
    return Ends(float(values[0]), float(values[-1]), residual)


def cg_iterations(
    operator: SymmetricOperator, right: Tensor, tol: float, most: int, *, floor: float, best: float | None = None
) -> tuple[int, bool, int]:
    """How many iterations conjugate gradients take, in the arithmetic that they run in.

    The recurrence's coefficients are the Jacobi matrix of the right-hand side's spectral measure. The error in the
    energy norm after k iterations is |e_k|^2 = b'A^-1 b - sum of gamma_j |r_j|^2, its Gauss quadrature; where b'A^-1 b
    is not known, the Gauss-Radau rule with a node below all eigenvalues bounds what is left (Golub and Meurant 2010,
    ch. 12; Meurant and Tichy 2013 for its recurrence).

    Args:
        operator: Preconditioned A, positive definite.
        right: b, preconditioned likewise.
        tol: Of the error in the energy norm, relative to that at the start.
        most: Where to end.
        floor: At or below the smallest eigenvalue.
        best: b'A^-1 b, where it is known.

    Returns:
        Iterations, whether more than that are needed, and products spent.

    >>> cg_iterations(torch.diag(torch.tensor([1.0, 4.0]).double()), torch.ones(2).double(), 1e-3, 10, floor=1.0)
    (2, False, 2)
    """
    residual, direction = right, right
    gains: list[float] = []
    squared, radau = float(right @ right), 1 / floor
    total = math.inf if best is None else best
    while len(gains) < most:
        image = operator @ direction
        bent = float(direction @ image)
        if not bent > 0:  # rounding, or a negative part that was not found
            break
        gamma = squared / bent
        gains.append(gamma * squared)
        residual = residual - gamma * image
        before, squared = squared, float(residual @ residual)
        ratio = squared / before
        left = max(radau - gamma, 0.0)
        radau = left / (floor * left + ratio) if ratio else 0.0
        if best is None and radau * squared <= TAIL * tol**2 * sum(gains):
            total = sum(gains) + radau * squared
        if (math.isfinite(total) and total - sum(gains) <= tol**2 * total) or not squared:
            return _reached(gains, min(total, sum(gains) + radau * squared), tol), False, len(gains)
        direction = residual + ratio * direction
    return len(gains), True, len(gains)


def _reached(gains: list[float], total: float, tol: float) -> int:
    """The first iteration after which no more than the tolerance of the total is left."""
    left = total
    for k, gain in enumerate(gains, 1):
        left -= gain
        if left <= tol**2 * total:
            return k
    return len(gains)
