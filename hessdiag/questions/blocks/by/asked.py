"""What every stage of a sampled measurement is given, and how far they all are."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hessdiag.curvature.support import Products, Restricted, Support
from hessdiag.machine import cost
from hessdiag.machine.work import Work
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress


@dataclass
class Meter:
    """Counts products against what was planned.

    Attributes:
        report: Told of them.
        planned: Products in all, at most.
        done: So far; a stage that took fewer than it might have counts as if it had taken all.
        spent: Truly, an earlier run's among them whose pieces are taken up.
    """

    report: Progress
    planned: int
    done: int = 0
    spent: int = 0

    def add(self, products: int, instead_of: int | None = None) -> None:
        """So many products were taken, where at most so many were planned."""
        self.spent += products
        self.done += products if instead_of is None else instead_of
        left = Work(max(self.planned - self.done, 0))
        cost.reach(0.0, left, left)
        self.report(min(self.done, self.planned), self.planned, "products, at most")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every stage is given.

    Attributes:
        part: The problem, without rows that are zero.
        layout: Where blocks are among the m rows that are left.
        matrix: The Hessian of these, (m, m).
        width: Vectors of a product.
        probes: Random vectors for the norms of blocks.
        seed: Of all that is random.
        pieces: What is kept.
        meter: How far it is.
    """

    part: Support
    layout: Layout
    matrix: Products | Restricted
    width: int
    probes: int
    seed: int
    pieces: Pieces
    meter: Meter = field(repr=False)

    @property
    def size(self) -> int:
        """M."""
        return self.matrix.shape[0]

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of the matrix, (k, m): a product with a unit vector each."""
        units = torch.zeros(self.size, len(indices), dtype=self.matrix.dtype, device=self.matrix.device)
        units[indices.to(units.device), torch.arange(len(indices), device=units.device)] = 1.0
        return (self.matrix @ units).T
