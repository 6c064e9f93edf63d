"""The memory model of sharded products: what each of so many processes holds."""

import math
from dataclasses import dataclass
from typing import Any

from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.machine import processes
from hessdiag.shards.division import largest

# Measured with GPT-2 of 88 and 124 million parameters on 2 and 4 processes, see docs/how-to/large-models.md.
PASSING_PIECES = 2.5  # vectors of one product of a sharded model, beside its parameters
UNIT = 4.3  # sizes of the largest unit that are held while it is computed anew


@dataclass(frozen=True)
class Spreading:
    """What pieces take: the memory model of sharded products.

    Attributes:
        vector: Bytes of a whole vector.
        weights: Bytes of all parameters, differentiated or not.
        unit: Bytes of the largest part of the model that is whole at a time.
        size: How many processes there are.
        sharded: Whether the model is in pieces.
    """

    vector: int
    weights: int
    unit: int
    size: int
    sharded: bool

    @property
    def here(self) -> int:
        """Bytes of the parameters that this process holds already."""
        return self.weights // self.size if self.sharded else self.weights

    def peak(self, vectors: float, size: int) -> float:
        """Bytes that each of so many processes holds at the peak, with so many vectors beside a product.

        >>> Spreading(vector=400, weights=400, unit=100, size=1, sharded=False).peak(10, 4)  # (3.5 + 10) / 4, 4.3
        1780.0
        """
        spread = self.weights + (PASSING_PIECES + vectors) * self.vector
        return spread / size + UNIT * self.unit

    def processes(self, vectors: float, each: float) -> int | None:
        """The fewest processes of so many bytes each that hold them; `None` where no number does."""
        room = each - UNIT * self.unit
        return max(math.ceil((self.peak(vectors, 1) - UNIT * self.unit) / room), 1) if room > 0 else None


def spreading_of(matrix: CurvatureOperator[Any]) -> Spreading:
    """What pieces of a problem take, or would."""
    problem = matrix.problem
    units, item = getattr(problem, "units", None), matrix.dtype.itemsize
    return Spreading(
        vector=matrix.shape[0] * item,
        weights=sum(parameter.numel() for parameter in problem.model.parameters()) * problem.dtype.itemsize,
        unit=(largest(problem.model) if units is None else units.largest) * problem.dtype.itemsize,
        size=processes.ranks()[1],
        sharded=units is not None,
    )
