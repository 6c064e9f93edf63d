"""Where the numbers of parameters lie that are spread over processes: each flat, padded with zeros, cut by rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from hessdiag.machine.collectives import gathered, summed
from hessdiag.machine.draws import in_blocks

BLOCK = 2**18  # numbers of a whole vector that are drawn at a time


def share(numel: int, size: int) -> int:
    """How many numbers of a tensor each of `size` processes keeps, padding included.

    >>> share(10, 4)
    3
    """
    return -(-numel // size)


def bounds(numel: int, rank: int, size: int) -> tuple[int, int]:
    """Which numbers of a flat tensor a process keeps; fewer than its share where the tensor ends.

    >>> [bounds(10, rank, 4) for rank in range(4)]
    [(0, 3), (3, 6), (6, 9), (9, 10)]
    """
    own = share(numel, size)
    return min(rank * own, numel), min((rank + 1) * own, numel)


def padded(numbers: Tensor, own: int) -> Tensor:
    """A copy of flat numbers, with zeros behind them up to the length of a piece."""
    piece = numbers.new_zeros(own)
    piece[: numbers.numel()] = numbers
    return piece


def cut(whole: Tensor, rank: int, size: int) -> Tensor:
    """The piece that a process keeps of a tensor, a copy.

    >>> cut(torch.arange(4), 1, 3)
    tensor([2, 3])
    >>> cut(torch.arange(4), 2, 3)
    tensor([0, 0])
    """
    start, stop = bounds(whole.numel(), rank, size)
    return padded(whole.detach().reshape(-1)[start:stop], share(whole.numel(), size))


@dataclass(frozen=True)
class Layout:
    """Where each parameter's numbers lie: in a whole vector, and in the vector that one process holds.

    A whole vector has the parameters one after the other, in the order of the problem's. Each process holds of each
    parameter a piece, and its vectors have these pieces one after the other, with the zeros that pad them.

    Attributes:
        names: Of the differentiated parameters.
        shapes: Theirs.
        rank: Which process this is.
        size: How many there are.

    >>> layout = Layout(("a", "b"), (torch.Size([2, 2]), torch.Size([3])), rank=1, size=2)
    >>> layout.n, layout.own
    (7, 4)
    >>> layout.kept(lambda count: torch.arange(1.0, count + 1))
    tensor([3., 4., 7., 0.])
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    rank: int
    size: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Numbers of each parameter."""
        return tuple(shape.numel() for shape in self.shapes)

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """Numbers of each piece, padding included."""
        return tuple(share(count, self.size) for count in self.counts)

    @property
    def n(self) -> int:
        """Numbers of a whole vector."""
        return sum(self.counts)

    @cached_property
    def own(self) -> int:
        """Numbers of a local vector, padding included."""
        return sum(self.shares)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Where each piece lies in a local vector."""
        return tuple(slice(start, stop) for start, stop in pairwise((0, *accumulate(self.shares))))

    def pieces(self, local: Tensor) -> tuple[Tensor, ...]:
        """Views of a local (..., own) vector, one for each parameter."""
        return tuple(local[..., place] for place in self.places)

    def summed(self, numbers: Tensor) -> Tensor:
        """Each number summed over all processes, of which each has found its own from its pieces."""
        return summed(numbers)

    def kept(self, draw: Callable[[int], Tensor]) -> Tensor:
        """This process's (own,) part of a whole vector that comes in order; no more than a block of it is held.

        Args:
            draw: Gives the next so many numbers, (count,), or rows of several vectors side by side, (count, k). The
                numbers asked for are such that a generator on the CPU gives the vector that it gives at once.
        """
        local: Tensor | None = None
        firsts = tuple(accumulate(self.counts, initial=0))
        for start, stop in pairwise(accumulate(in_blocks(self.n, BLOCK), initial=0)):
            block = draw(stop - start)
            local = block.new_zeros(self.own, *block.shape[1:]) if local is None else local
            for first, count, place in zip(firsts, self.counts, self.places, strict=False):
                low, high = bounds(count, self.rank, self.size)
                begin, end = max(first + low, start), min(first + high, stop)
                if begin < end:
                    to = place.start - first - low
                    local[to + begin : to + end] = block[begin - start : end - start]
        assert local is not None  # a problem has a parameter
        return local

    def within(self, start: int, stop: int) -> tuple[slice, "Layout"]:
        """Where the local numbers of some neighbouring parameters lie, and the layout of these alone.

        Args:
            start: Where the first of them begins in a whole vector.
            stop: Where the last of them ends.

        >>> layout = Layout(("a", "b"), (torch.Size([2, 2]), torch.Size([3])), rank=1, size=2)
        >>> where, only = layout.within(4, 7)
        >>> where, only.names, only.own
        (slice(2, 4, None), ('b',), 2)
        """
        edges = tuple(accumulate(self.counts, initial=0))
        first, last = edges.index(start), edges.index(stop)
        local = slice(sum(self.shares[:first]), sum(self.shares[:last]))
        return local, Layout(self.names[first:last], self.shapes[first:last], self.rank, self.size)

    def whole(self, local: Tensor) -> Tensor:
        """The whole (n, ...) vector of local ones (own, ...), on each process: for tests and small results."""
        together = gathered(local.detach()).reshape(self.size, *local.shape)
        parts = [
            together[:, place].reshape(-1, *local.shape[1:])[:count]
            for place, count in zip(self.places, self.counts, strict=True)
        ]
        return torch.cat(parts)


def layout_of(named: Sequence[tuple[str, nn.Parameter]], rank: int, size: int) -> Layout:
    """The layout of parameters by name."""
    names, tensors = zip(*named, strict=True)
    return Layout(names, tuple(torch.Size(tensor.shape) for tensor in tensors), rank, size)
