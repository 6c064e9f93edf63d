"""Minibatches of a few samples, in an order that one seed makes: what short training runs are given."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.problem.batches import batch as batches


class Minibatches:
    """So many samples at a time, of each batch in turn, in a new order each time; the same for one seed.

    What is left over of a batch is left out of that round. A batch that is no larger, or whose tensors are not all as
    long as it has samples, is given as it is.

    Args:
        data: Batches.
        seed: Of the order.
        samples: In a minibatch.

    >>> pieces = Minibatches([(torch.arange(6.0), torch.zeros(6))], seed=0, samples=2)
    >>> sorted(float(number) for _ in range(3) for number in next(pieces)[0])
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """

    def __init__(self, data: Sequence[Any], seed: int, samples: int) -> None:
        self.data, self.samples = data, samples
        self._source = torch.Generator().manual_seed(seed)
        self._ahead: list[Any] = []

    def __next__(self) -> Any:
        if not self._ahead:
            self._ahead = [piece for batch in self.data for piece in self._pieces(batch)]
            self._ahead.reverse()
        batch, order = self._ahead.pop()
        if order is None:
            return batch
        return batches.map_tensors(lambda tensor: tensor[order.to(tensor.device)] if tensor.ndim else tensor, batch)

    def _pieces(self, batch: Any) -> list[tuple[Any, Tensor | None]]:
        if not divisible(batch, self.samples):
            return [(batch, None)]
        order = torch.randperm(batches.samples(batch), generator=self._source)
        return [(batch, piece) for piece in torch.split(order, self.samples) if len(piece) == self.samples]


def divisible(batch: Any, samples: int) -> bool:
    """Whether a batch is larger than so many samples, and can be cut into them."""
    count = batches.samples(batch)
    return count > samples and {len(tensor) for tensor in batches.tensors(batch) if tensor.ndim} == {count}
