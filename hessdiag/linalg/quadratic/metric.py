"""Lengths ||s||_M = sqrt(s'Ms), of a diagonal or a whole matrix."""

import torch
from torch import Tensor


class Metric:
    """M = L L': divides by M, by L, and by L'."""

    def __init__(self, metric: Tensor | None) -> None:
        self._diagonal = metric if metric is not None and metric.ndim == 1 else None
        self._factor = None
        if metric is not None and metric.ndim == 2:
            self._factor, failed = torch.linalg.cholesky_ex(metric)
            if failed:
                raise ValueError("the metric is not positive definite")
        elif metric is not None:
            if not bool((metric > 0).all()):
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
