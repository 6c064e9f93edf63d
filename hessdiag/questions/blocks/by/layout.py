"""Where the blocks of a partition are among the rows of a Hessian that need not vanish."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.support import Support
from hessdiag.problem.partition import Partition


@dataclass(frozen=True)
class Layout:
    """The blocks of a partition among the m rows of a Hessian that are computed.

    Attributes:
        partition: The blocks themselves.
        rows: Of each block, its rows among the m, ascending.
        owner: Of each of the m rows, its block, (m,).
    """

    partition: Partition
    rows: tuple[Tensor, ...]
    owner: Tensor

    @classmethod
    def of(cls, partition: Partition, part: Support) -> "Layout":
        """Find them, where some rows are left out because they are zero."""
        owner = partition.labels[part.kept]
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=len(partition.names))
        return cls(partition, tuple(torch.split(order, counts.tolist())), owner)

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self.rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Parameters of each block, zero rows among them."""
        return self.partition.sizes

    def zeros(self, block: int) -> int:
        """Rows of a block that are left out."""
        return self.sizes[block] - len(self.rows[block])

    def sums(self, numbers: Tensor) -> Tensor:
        """Sums over the entries of each block, (blocks, ...), of numbers whose first axis are the rows, (m, ...)."""
        found = numbers.new_zeros(self.count, *numbers.shape[1:])
        return found.index_add_(0, self.owner.to(numbers.device), numbers)
