"""Gershgorin's discs of an operator: exact from its rows, or all at once from random products."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.linalg import inclusion
from hessdiag.linalg.component import Component
from hessdiag.linalg.estimators import columns_of
from hessdiag.linalg.inclusion import Interval
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.machine.arithmetic import ieee

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Discs:
    """Discs whose union holds all eigenvalues; estimates of them where row sums are sketched.

    Attributes:
        centres: The diagonal, (n,); zero where sketched.
        radii: Absolute sums of the rows without it, (n,); where sketched, of whole rows, whose disc around zero holds
            the row's own.
        relative_stderr: Standard error of every radius over the radius; 0 where they are exact.
        products: Products with vectors spent.
    """

    centres: Floats
    radii: Floats
    relative_stderr: float
    products: int

    @property
    def interval(self) -> Interval:
        """The hull of all discs (Gershgorin 1931)."""
        return inclusion.discs(self.centres, self.radii)

    @property
    def brauer(self) -> Interval:
        """The hull of Cassini's ovals of all pairs of rows (Brauer 1947), within that of the discs."""
        return inclusion.brauer(self.centres, self.radii)

    @property
    def components(self) -> tuple[Component, ...]:
        """Connected parts of their union, ascending, each with as many eigenvalues as discs."""
        return inclusion.components(self.centres, self.radii)


@ieee()
def discs(operator: SymmetricOperator, count: int | None = None, seed: int | None = None) -> Discs:
    """The discs from all n columns, or where `count` is less than n from as many Cauchy vectors.

    >>> discs(torch.tensor([[1.0, -2.0], [-2.0, 4.0]])).interval
    (-1.0, 6.0)
    """
    n = operator.shape[0]
    if count is not None and count < n:
        sketch = inclusion.sketch_row_sums(operator, count, seed)
        return Discs(np.zeros(n), sketch.sums, sketch.relative_stderr, count)
    diagonal, sums = torch.zeros(2, n, dtype=torch.float64)
    for places, columns in columns_of(operator):
        wide = columns.double()
        diagonal[places] = wide[places].diagonal().cpu()
        sums[places] = wide.abs().sum(0).cpu()
    return Discs(diagonal.numpy(), (sums - diagonal.abs()).clamp(min=0).numpy(), 0.0, n)
