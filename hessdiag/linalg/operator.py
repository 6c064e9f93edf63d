"""What the numerics ask of a matrix: products with vectors, and nothing else."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class SymmetricOperator(Protocol):
    """A symmetric (n, n) matrix known through its products; a square tensor is one."""

    @property
    def shape(self) -> Sequence[int]:
        """(n, n)."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors."""

    @property
    def device(self) -> torch.device:
        """Device of vectors."""

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """A @ v with v of shape (n,), or A @ V with V of shape (n, k)."""


class InTerms:
    """What a sum of operators says of itself: that it can be taken apart.

    Attributes:
        terms: Pairs of weight and operator.
    """

    terms: tuple[tuple[float, SymmetricOperator], ...]
