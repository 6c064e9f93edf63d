"""The Krylov space of a matrix and a gradient in a metric, grown one product at a time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.quadratic.metric import Metric
from hessdiag.linalg.quadratic.step import ModelStep, size_of
from hessdiag.linalg.spread import spread_of
from hessdiag.linalg.tridiagonal import BREAKDOWN, orthogonalize, safe_norm

Vector = NDArray[np.float64]


class Lanczos:
    """The Krylov space of L^-1 B L'^-1 and L^-1 g, one product at a time.

    Attributes:
        size: Of the gradient, in the norm of the inverse of M.
        products: So far.
        values: Of the tridiagonal matrix, ascending.
        vectors: Its eigenvectors, as columns.
        coupling: Of what was found last to what comes next; 0 where the space is exhausted.
    """

    values: Vector
    vectors: Vector

    def __init__(self, operator: SymmetricOperator, gradient: Tensor, scales: Metric, most: int, seed: int) -> None:
        self._operator, self._scales = operator, scales
        start = scales.forward(gradient)
        self._spread = spread = spread_of(operator)
        self.size = size_of(start, spread=spread)
        self._alphas: list[float] = []
        self._betas: list[float] = []
        self._norm = self.coupling = 0.0  # of B: the largest |B q|
        self._before = 0  # products that are no step of Lanczos
        if self.size == 0:  # an image of B has no part where B is zero
            generator = torch.Generator().manual_seed(seed)
            drawn = spread.kept(lambda count: torch.randn(count, generator=generator, dtype=torch.float64))
            random = drawn.to(gradient)
            start, self._before = self._image(random), 1
        self._most = min(max(most - self._before, 1), spread.n)
        self._basis = start.new_empty(self._most + 1, len(gradient))  # takes memory as it fills
        torch.div(start, self.size or safe_norm(start, spread) or 1.0, out=self._basis[0])

    @property
    def products(self) -> int:
        """So far."""
        return self._before + len(self._alphas)

    def _image(self, vector: Tensor) -> Tensor:
        return self._scales.forward(self._operator @ self._scales.back(vector))

    @property
    def _rounding(self) -> float:
        return BREAKDOWN * torch.finfo(self._basis.dtype).eps * self._norm

    def grow(self) -> bool:
        """Take one more product, and solve for the eigenpairs. Whether there is another one to take."""
        done = len(self._alphas)
        image = self._image(self._basis[done])
        self._norm = max(self._norm, size_of(image, "a product with the matrix", self._spread))
        rest, found = orthogonalize(image[None], self._basis[: done + 1], near=2, spread=self._spread)
        self._alphas.append(float(found[0, -1]))
        left = safe_norm(rest, self._spread)
        self.coupling = left if left > self._rounding and done + 1 < self._spread.n else 0.0
        T = np.diag(self._alphas) + np.diag(self._betas, 1) + np.diag(self._betas, -1)
        self.values, self.vectors = np.linalg.eigh(T)
        if not self.coupling:
            return False
        torch.div(rest[0], left, out=self._basis[done + 1])
        self._betas.append(left)
        return len(self._alphas) < self._most

    def lowest(self, tolerance: float) -> float:
        """The lowest eigenvalue if it is negative beyond rounding, to a residual relative to it; 0 otherwise."""
        while self.grow():
            if self.values[0] < 0 and self.coupling * abs(self.vectors[-1, 0]) <= -tolerance * self.values[0]:
                break
        found = float(self.values[0])
        return found if found < -self._rounding else 0.0

    def downhill(self, length: float, decrease: float) -> ModelStep:
        """A step along the lowest eigenvector, or none."""
        step = self.combined(length * self.vectors[:, 0])
        return ModelStep(step, decrease, "negative curvature" if length else "interior", self.products, length)

    def combined(self, weights: Vector) -> Tensor:
        """A combination of the basis, as a step."""
        return self._scales.back(torch.from_numpy(weights).to(self._basis) @ self._basis[: len(weights)])
