"""Products with Cauchy vectors, which tell how large rows are: every entry is Cauchy, and its scale sum_j |A_ij|.

Indyk (2006).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hessdiag.linalg.estimators import seeded
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import LONG


def images(operator: SymmetricOperator, count: int, seed: int | None, *, together: int) -> Iterator[Tensor]:
    """An operator's products with Cauchy vectors, as columns, some at a time.

    Args:
        operator: Symmetric, (n, n).
        count: Vectors, each one product.
        seed: `None` for fresh randomness.
        together: Vectors of one product; how many decides which numbers they are.
    """
    generator = seeded(seed)
    for start in range(0, count, together):
        yield operator @ _vectors(operator, min(together, count - start), generator)


def _vectors(operator: SymmetricOperator, count: int, generator: torch.Generator) -> Tensor:
    """Columns of independent Cauchy numbers, drawn some rows at a time: the same on every device."""
    drawn = torch.empty(operator.shape[0], count, dtype=operator.dtype, device=operator.device)
    for part in torch.split(drawn, LONG):
        uniform = torch.rand(part.shape, generator=generator, dtype=torch.float64)
        part.copy_(torch.tan(math.pi * (uniform - 0.5)))
    return drawn
