"""Rows of a Hessian that are zero for these batches: found once, proven by a product, and left out of all vectors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature import dense
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.shared import SharedOperator
from hessdiag.errors import ComputeError
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.problem.problem import Problem
from hessdiag.problem.touched import touched
from hessdiag.shards.problem import ShardedProblem

Products = CurvatureOperator[Any] | SharedOperator

LEAST = 0.1  # share of the rows from which leaving them out pays
PROBES = 2  # random vectors whose products look for rows that vanish; one more proves it


@dataclass(frozen=True)
class Support:
    """The rows of a Hessian that need not vanish.

    Attributes:
        whole: The problem asked about, N parameters.
        problem: The same function of the parameters that the batches touch, M of them.
        touched: Their places among the N, (M,); `None` for all.
        rows: Places among the M of rows that are not exactly zero, (m,); `None` for all.
    """

    whole: Problem
    problem: Problem
    touched: Tensor | None = None
    rows: Tensor | None = None

    @property
    def size(self) -> int:
        """m, the length of vectors."""
        return self.problem.n_parameters if self.rows is None else len(self.rows)

    @property
    def zeros(self) -> int:
        """N - m: rows that are zero, and eigenvalues with them."""
        return self.whole.n_parameters - self.size

    @property
    def untouched(self) -> int:
        """N - M: parameters that no batch touches."""
        return self.whole.n_parameters - self.problem.n_parameters

    @property
    def kept(self) -> Tensor:
        """Places among the N of a vector's m entries."""
        every = torch.arange(self.whole.n_parameters) if self.touched is None else self.touched
        return every if self.rows is None else every[self.rows.cpu()]

    def restrict(self, operator: Products, together: int = 1) -> "Products | Restricted":
        """An operator of the problem, (M, M), without its rows of zeros: (m, m)."""
        return operator if self.rows is None else Restricted(operator, self.rows, together)

    def metric(self, whole: Tensor | None) -> Tensor | None:
        """A diagonal metric of all N parameters, of the M touched ones."""
        return whole if whole is None or self.touched is None else whole[self.touched.to(whole.device)]

    def shorten(self, vector: Tensor) -> Tensor:
        """A vector of the M touched parameters without the entries of rows that are zero."""
        return vector if self.rows is None else vector[self.rows.to(vector.device)]

    def places(self, nulls: int = 0) -> Tensor:
        """Where the m entries of a vector are among all N, and behind them some rows that are zero, (m + nulls,)."""
        if not nulls:
            return self.kept
        zero = torch.ones(self.whole.n_parameters, dtype=torch.bool)
        zero[self.kept] = False
        return torch.cat([self.kept, torch.nonzero(zero)[:nulls, 0]])

    def dense(self, operator: HessianOperator) -> Tensor:
        """The (m, m) matrix itself, of the problem's operator.

        Raises:
            ComputeError: if it does not fit, or cannot be computed.
        """
        if self.rows is None:
            return dense.of(operator)
        parts = torch.split(self.rows, operator.chunk)
        return torch.cat([operator.rows(part)[:, self.rows.to(operator.device)] for part in parts])


class Restricted:
    """Some rows and columns of an operator whose others are zero, as an operator of shorter vectors.

    Args:
        operator: Symmetric, (n, n).
        rows: Places of the rows that are kept, (m,).
        together: Vectors that are long at the same time.
    """

    def __init__(self, operator: "Products | Restricted", rows: Tensor, together: int = 1) -> None:
        self.operator, self.rows, self.together = operator, rows.to(operator.device), together
        self.precision: float = operator.precision
        self.shape = (len(rows), len(rows))
        self.dtype: torch.dtype = operator.dtype
        self.device: torch.device = operator.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with v of shape (m,), or V of shape (m, k)."""
        if vectors.ndim == 1:
            return self._product(vectors[:, None])[:, 0]
        return torch.cat([self._product(part) for part in torch.split(vectors, self.together, dim=1)], dim=1)

    def _product(self, vectors: Tensor) -> Tensor:
        wide = torch.zeros(self.operator.shape[0], vectors.shape[1], dtype=self.dtype, device=self.device)
        wide[self.rows] = vectors.to(wide)
        return (self.operator @ wide)[self.rows]


def support(problem: Problem, beyond: int, *, seed: int = 0, numeric: bool = True) -> Support:
    """Which rows of a problem's Hessian are not zero.

    First by structure: parameters that the loss does not reach, and rows of tables that no batch looks up. Then, where
    a tenth of the gradient is exactly zero, by products: rows that vanish in the products with random vectors are
    left out if the product with a random vector of their own vanishes everywhere, which has probability zero unless
    they are zero rows. What is found by structure is held against one gradient and one product of the whole problem.

    Args:
        problem: What is differentiated.
        beyond: Up to so many parameters nothing is looked for.
        seed: Of the random vectors.
        numeric: Whether to look by products too.

    >>> model = torch.nn.Sequential(torch.nn.Embedding(100, 2), torch.nn.Flatten(), torch.nn.Linear(4, 1))
    >>> part = support(Problem(model, data=[(torch.tensor([[5, 7]]), torch.zeros(1, 1))], loss="mse"), 50)
    >>> part.whole.n_parameters, part.size, part.untouched
    (205, 9, 196)
    """
    everything = Support(problem, problem)
    if problem.n_parameters <= beyond or isinstance(problem, ShardedProblem):  # of which no process sees rows
        return everything
    found = everything
    part = touched(problem, LEAST)
    if part is not None and _agrees(problem, part.problem, part.kept, seed):
        found = Support(problem, part.problem, part.kept)
    if numeric and found.size > beyond:
        rows = _not_vanishing(found.problem, seed)
        if rows is not None:
            found = Support(problem, found.problem, found.touched, rows)
    return found


def _agrees(whole: Problem, part: Problem, kept: Tensor, seed: int) -> bool:
    """Whether gradient and product of the whole are those of the part, and exactly zero elsewhere."""
    long, short = HessianOperator(whole, check=False), HessianOperator(part, check=False)
    v = _random(1, long, seed)[:, 0]
    kept = kept.to(long.device)
    try:
        pairs = [(long.gradient(), short.gradient()), (long @ v, short @ v[kept])]
    except (ComputeError, RuntimeError, IndexError):
        return False
    elsewhere = torch.ones(whole.n_parameters, dtype=torch.bool, device=long.device)
    elsewhere[kept] = False
    close = torch.finfo(whole.dtype).eps ** 0.5
    return all(
        not bool(wide[elsewhere].any()) and safe_norm(wide[kept] - narrow) <= close * safe_norm(narrow)
        for wide, narrow in pairs
    )


def _not_vanishing(problem: Problem, seed: int) -> Tensor | None:
    """Rows that are not exactly zero, where enough are; `None` otherwise."""
    operator = HessianOperator(problem, check=False)
    few = LEAST * problem.n_parameters
    zero = operator.gradient() == 0
    if int(zero.sum()) < few:
        return None
    try:
        for index in range(PROBES):
            zero &= (operator @ _random(1, operator, seed + index)[:, 0]) == 0
            if int(zero.sum()) < few or operator.missing is not None:
                return None
        own = _random(1, operator, seed + PROBES)[:, 0] * zero
        if bool((operator @ own).any()) or not bool((~zero).any()):
            return None
    except ComputeError:  # products that are not finite, of which the check of the point will find the cause
        return None
    return torch.nonzero(~zero)[:, 0]


def _random(count: int, operator: Any, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(operator.shape[0], count, generator=generator)
    return vectors.to(operator.device, operator.dtype)
