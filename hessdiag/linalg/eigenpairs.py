"""Pairs at both ends of a spectrum: what is known of them, those of a matrix at hand, and of one with zeros added."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hessdiag.linalg.spread import Spread, agreed, is_alone, piece_of
from hessdiag.machine import capacity
from hessdiag.machine.arithmetic import ieee
from hessdiag.machine.once import once

ROUNDING = 32.0  # units of the products' relative error, times |A|, below which a residual is noise


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs at both ends of a spectrum.

    Attributes:
        values: Ascending, float64 on the CPU, shape (k,). The first `lowest` and the last `highest` are those asked
            for; they overlap where n is less than both together.
        vectors: Unit columns in the operator's dtype, shape (n, k); pieces, where they are spread over
            processes.
        residuals: |A v - theta v|, formed from products with A and not estimated from the recurrence; float64, (k,).
        converged: residual <= max(tol |theta|, rounding); bool, shape (k,). One that has not is a bound, by Cauchy's
            interlacing: the k-th smallest Ritz value is at or above the k-th smallest eigenvalue, the k-th largest
            at or below the k-th largest.
        lowest: How many belong to the lower end; fewer than asked for only if n is less, or after an interrupt.
        highest: How many belong to the upper end.
        rounding: 32 |A| times the relative error of products: a smaller eigenvalue cannot be told from zero, and its
            residual need not be.
        products: Products with single vectors that were spent.
        basis: The most vectors held.
        restarts: How often the basis was compressed.
        spectrum: All eigenvalues, ascending, where the matrix was formed; else `None`.
        interrupted: Whether the keyboard ended the iteration.
        ritz_range: The smallest and the largest Ritz value of the whole run, wanted or not. Each is v'Av of some unit
            vector: the smallest eigenvalue is at or below the first, the largest at or above the second.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    lowest: int
    highest: int
    rounding: float
    products: int
    basis: int
    restarts: int
    spectrum: Tensor | None
    interrupted: bool
    ritz_range: tuple[float, float]

    def bound(self, index: int) -> Literal["lower", "upper"] | None:
        """Of the eigenvalue of its rank, which bound a pair that has not converged is; `None` of one that has."""
        return None if bool(self.converged[index]) else "upper" if index < self.lowest else "lower"


def ends(size: int, lowest: int, highest: int) -> Tensor:
    """Places of the first `lowest` and the last `highest` of `size`.

    >>> ends(6, 1, 2), ends(2, 2, 2)
    (tensor([0, 4, 5]), tensor([0, 1]))
    """
    places = torch.arange(size)
    return places[(places < lowest) | (places >= size - highest)]


@ieee()
def dense_eigenpairs(
    matrix: Tensor,
    *,
    lowest: int,
    highest: int,
    tol: float = 1e-3,
    precision: float | None = None,
    spread: Spread | None = None,
) -> Eigenpairs:
    """Both ends, and the whole spectrum, of a matrix that is at hand, decomposed in float64.

    Args:
        matrix: Symmetric up to rounding, (n, n); symmetrized before it is decomposed, but not for the residuals.
        lowest: Pairs wanted at the lower end.
        highest: Pairs wanted at the upper end.
        tol: As in `extreme_eigenpairs`.
        precision: As in `extreme_eigenpairs`, of the matrix.
        spread: Over processes, of the vectors: each has the whole matrix, and gets its piece. Default: not at all.

    Returns:
        The pairs, with n products counted.

    >>> dense_eigenpairs(torch.diag(torch.tensor([3.0, -1.0, 2.0])), lowest=1, highest=1).values
    tensor([-1.,  3.], dtype=torch.float64)
    """
    n = len(matrix)
    lowest, highest = min(lowest, n), min(highest, n)
    wide = in_float64(matrix)
    spectrum, vectors = _decomposed(wide, spread)
    wanted = ends(n, lowest, highest)
    vectors = vectors[:, wanted.to(wide.device)]
    residuals = torch.linalg.vector_norm(wide @ vectors - vectors * spectrum[wanted.to(wide.device)], dim=0).cpu()
    spectrum = spectrum.cpu()
    values = spectrum[wanted]
    rounding = ROUNDING * (precision or torch.finfo(matrix.dtype).eps) * float(spectrum.abs().max())
    return Eigenpairs(
        values=values,
        vectors=piece_of(vectors.to(matrix.device, matrix.dtype), spread),
        residuals=residuals,
        converged=residuals <= (tol * values.abs()).clamp(min=rounding),
        lowest=lowest,
        highest=highest,
        rounding=rounding,
        products=n,
        basis=n,
        restarts=0,
        spectrum=spectrum,
        interrupted=False,
        ritz_range=(float(spectrum[0]), float(spectrum[-1])),
    )


def decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """All eigenvalues and eigenvectors of a matrix in float64, symmetrized; once, where work is shared."""
    key = ("decomposed", id(matrix))  # which is kept beside, so that no other matrix gets its number
    _, values, vectors = once(key, lambda: (matrix, *torch.linalg.eigh((matrix + matrix.T) / 2)))
    return values, vectors


def _decomposed(matrix: Tensor, spread: Spread | None) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors: those of repeated ones are anybody's choice, but one for all processes."""
    values, vectors = decomposed(matrix)
    if is_alone(spread):
        return values, vectors
    both = agreed(torch.cat([values[None], vectors]), spread)
    return both[0], both[1:]


def in_float64(matrix: Tensor) -> Tensor:
    """A dense matrix where it is decomposed: on the CPU, or on a GPU if it is there and large enough to gain by it."""
    least = capacity.of(matrix.device).least_decomposed
    return matrix.double() if least is not None and len(matrix) >= least else matrix.cpu().double()


def padded(pairs: Eigenpairs, zeros: int, *, lowest: int, highest: int) -> Eigenpairs:
    """The pairs of a matrix with rows and columns of zeros added, from those of the matrix without.

    Args:
        pairs: Of the (m, m) matrix.
        zeros: How many rows and columns of zeros come behind it.
        lowest: Pairs wanted at the lower end.
        highest: Pairs wanted at the upper end.

    Returns:
        Pairs with vectors of m + min(zeros, lowest + highest) entries, for no more zeros than that can be among them;
        `spectrum` stays that of the matrix. A zero at an end that has not converged counts as not converged either:
        what is not known yet may be further out.

    >>> found = dense_eigenpairs(torch.diag(torch.tensor([3.0, -1.0])), lowest=2, highest=2)
    >>> padded(found, 10, lowest=2, highest=2).values
    tensor([-1.,  0.,  0.,  3.], dtype=torch.float64)
    """
    k, held = len(pairs.values), min(zeros, lowest + highest)
    m = len(pairs.vectors)
    vectors = pairs.vectors.new_zeros(m + held, k + held)
    vectors[:m, :k] = pairs.vectors
    vectors[m:, k:] = torch.eye(held, dtype=vectors.dtype, device=vectors.device)
    values, residuals = (torch.cat([of, torch.zeros(held, dtype=of.dtype)]) for of in (pairs.values, pairs.residuals))
    # Both ends may draw on the same few zeros: no more than there are can be wanted.
    low = torch.tensor([*range(pairs.lowest), *range(k, k + min(lowest, held))], dtype=torch.int64)
    high = torch.tensor(
        [*range(k + held - min(highest, held), k + held), *range(k - pairs.highest, k)], dtype=torch.int64
    )
    low = low[values[low].argsort(stable=True)][:lowest]
    high = high[values[high].argsort(stable=True)][max(len(high) - highest, 0) :]
    order = torch.cat([low, high])
    known = [bool(pairs.converged[:1].all()) or not pairs.lowest, bool(pairs.converged[-1:].all()) or not pairs.highest]
    converged = torch.cat(
        [torch.cat([pairs.converged, torch.full((held,), end)])[at] for at, end in zip((low, high), known, strict=True)]
    )
    return replace(
        pairs,
        values=values[order],
        vectors=vectors[:, order.to(vectors.device)],
        residuals=residuals[order],
        converged=converged,
        lowest=len(low),
        highest=len(high),
        ritz_range=(min(pairs.ritz_range[0], 0.0), max(pairs.ritz_range[1], 0.0)),
    )
