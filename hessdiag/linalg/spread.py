"""How the vectors of an operator are spread over processes: what each holds of them, and how sums come together.

The solvers know vectors by their inner products only. Where each process holds a piece, they sum what its piece gives,
all numbers of a pass at once, and go on from the sums: what they decide is then the same on every process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hessdiag.machine.draws import GROUP, in_blocks
from hessdiag.machine.ranks import ranks

BLOCK = 2**16  # rows drawn at a time, of a long vector


class Spread(Protocol):
    """How the vectors of an operator are spread over processes.

    An operator that has one as its attribute `spread` takes and gives pieces, (own,) or (own, k), and says (n, n) for
    its shape. All processes call the same functions in the same order.
    """

    @property
    def n(self) -> int:
        """Numbers of a whole vector."""

    @property
    def own(self) -> int:
        """Numbers of this process's piece. Those that only fill it up are zero, and products keep them zero."""

    def summed(self, numbers: Tensor, /) -> Tensor:
        """Each number summed over all processes: the same on all of them, to the bit; wherever it lies, CPU or GPU."""

    def kept(self, draw: Callable[[int], Tensor], /) -> Tensor:
        """This process's piece of a vector that comes in order, with zeros where it is filled up.

        Args:
            draw: Gives the next so many numbers, (count,), or rows of several vectors side by side, (count, k). It is
                asked for all n, in blocks of multiples of 16 of which the last has 16 or more: so cut, what
                `torch.randn` draws is the same as in one go.

        Returns:
            (own,), or (own, k), of the dtype and on the device of what is drawn.
        """

    def within(self, start: int, stop: int, /) -> tuple[slice, "Spread"]:
        """Where the piece of a range of entries lies in this process's piece, and how that range is spread.

        Args:
            start: A place in the whole vector where a parameter begins.
            stop: One where a parameter ends.
        """


@dataclass(frozen=True)
class Alone:
    """Vectors of n numbers, all of which are here.

    >>> Alone(3).kept(torch.zeros), Alone(3).summed(torch.ones(2))
    (tensor([0., 0., 0.]), tensor([1., 1.]))
    """

    n: int

    @property
    def own(self) -> int:
        """All of them."""
        return self.n

    def summed(self, numbers: Tensor, /) -> Tensor:
        """The numbers themselves."""
        return numbers

    def kept(self, draw: Callable[[int], Tensor], /) -> Tensor:
        """All that is drawn."""
        if self.n < BLOCK + GROUP:
            return draw(self.n)
        found, done = torch.empty(0), 0
        for count in in_blocks(self.n, BLOCK):
            part = draw(count)
            found = found if done else part.new_empty(self.n, *part.shape[1:])
            found[done : done + count] = part
            done += count
        return found

    def within(self, start: int, stop: int, /) -> tuple[slice, Spread]:
        """The range itself."""
        return slice(start, stop), Alone(stop - start)


def spread_of(operator: Any) -> Spread:
    """How an operator's vectors are spread: what it says of itself, or not at all.

    >>> spread_of(torch.eye(3))
    Alone(n=3)
    """
    known: Spread | None = getattr(operator, "spread", None)
    return Alone(operator.shape[0]) if known is None else known


def is_alone(spread: Spread | None) -> bool:
    """Whether all numbers are here, so that nothing need be summed."""
    return spread is None or isinstance(spread, Alone)


def summed(numbers: Tensor, spread: Spread | None) -> Tensor:
    """Each number summed over all processes that hold a piece."""
    return numbers if spread is None else spread.summed(numbers)


def agreed(numbers: Tensor, spread: Spread | None) -> Tensor:
    """Numbers that every process has, as the first has them: each may have rounded what it computed its own way."""
    if spread is None or is_alone(spread):
        return numbers
    leads = torch.full((1,), float(ranks()[0] == 0), dtype=numbers.dtype, device=numbers.device)
    total = spread.summed(torch.cat([torch.where(leads > 0, numbers.flatten(), 0), leads]))
    return (total[:-1] / total[-1]).view_as(numbers)


def interruptible(spread: Spread | None) -> bool:
    """Whether an interrupt may keep what is there: else others wait for the sums of a process that went on elsewhere.

    >>> interruptible(Alone(3))
    True
    """
    return is_alone(spread) or ranks()[1] == 1


def piece_of(whole: Tensor, spread: Spread | None) -> Tensor:
    """This process's piece of a vector that every process has whole, (n,) or (n, k).

    >>> piece_of(torch.tensor([1.0, 2.0]), Alone(2))
    tensor([1., 2.])
    """
    return whole if spread is None or is_alone(spread) else spread.kept(_in_order(whole))


def whole_of(piece: Tensor, spread: Spread) -> Tensor:
    """The whole of a vector, or of a few, (n,) or (n, k), from everyone's pieces: for what is small."""
    if is_alone(spread):
        return piece
    found = piece.new_zeros(spread.n + 1, *piece.shape[1:])
    found[places_of(spread).to(piece.device)] = piece
    return spread.summed(found[1:])


def places_of(spread: Spread) -> Tensor:
    """Which entries of the whole vector a piece holds, counted from 1; 0 where it is filled up. (own,), int64."""
    return spread.kept(_in_order(torch.arange(1, spread.n + 1)))


def _in_order(whole: Tensor) -> Callable[[int], Tensor]:
    """A function that gives the next so many rows at each call."""
    done = 0

    def following(count: int) -> Tensor:
        nonlocal done
        done += count
        return whole[done - count : done]

    return following
