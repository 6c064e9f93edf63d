"""Lengths ||s||_M = sqrt(s'Ms), of a diagonal or a whole matrix."""

import torch
from torch import Tensor

from hessdiag.linalg.spread import Spread, is_alone


class Metric:
    """M = L L': divides by M, by L, and by L'.

    Args:
        metric: The diagonal, or the matrix. Where vectors are spread each process has its piece of the diagonal, with
            ones where that is filled up.
        spread: Of the vectors, over processes.

    Raises:
        ValueError: if it is not positive definite, or a matrix beside vectors that are spread.
    """

    def __init__(self, metric: Tensor | None, spread: Spread) -> None:
        self._diagonal = metric if metric is not None and metric.ndim == 1 else None
        self._factor = None
        if metric is not None and metric.ndim == 2:
            if not is_alone(spread):
                raise ValueError("a whole matrix is no metric of vectors that are spread: a diagonal can be")
            self._factor, failed = torch.linalg.cholesky_ex(metric)
            if failed:
                raise ValueError("the metric is not positive definite")
        elif metric is not None:
            if bool(spread.summed((~(metric > 0)).sum())):
                raise ValueError("the metric is not positive")
            self._root = metric.sqrt()

    def solve(self, vector: Tensor) -> Tensor:
        """M^-1 v; never v itself."""
        if self._factor is not None:
            found: Tensor = torch.cholesky_solve(vector[:, None], self._factor)[:, 0]
            return found
        return vector / self._diagonal if self._diagonal is not None else vector.clone()

    def forward(self, vector: Tensor) -> Tensor:
        """L^-1 v."""
        if self._factor is not None:
            found: Tensor = torch.linalg.solve_triangular(self._factor, vector[:, None], upper=False)[:, 0]
            return found
        return vector / self._root if self._diagonal is not None else vector

    def back(self, vector: Tensor) -> Tensor:
        """L'^-1 v."""
        if self._factor is not None:
            found: Tensor = torch.linalg.solve_triangular(self._factor.mT, vector[:, None], upper=True)[:, 0]
            return found
        return vector / self._root if self._diagonal is not None else vector
