"""The tokens of all processes, so that each can do for all of them what it has the rows of the weight for."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.machine.collectives import gathered, scattered

AT_ONCE = 2**21  # numbers of the hidden states of all processes that are together at one time
MOST = 4096  # tokens, so that many rows of the weight can be used on them at one time, too


@dataclass(frozen=True)
class Tokens:
    """How many tokens each process has; those of fewer are followed by zeros.

    Attributes:
        counts: By process.
        rank: Which one this is.
    """

    counts: tuple[int, ...]
    rank: int

    @property
    def most(self) -> int:
        """The largest count."""
        return max(self.counts)

    def chunks(self, width: int) -> Iterator[slice]:
        """Which tokens of each process are worked on together, where a token has so many numbers."""
        step = max(min(AT_ONCE // width, MOST) // len(self.counts), 1)
        return (slice(start, min(start + step, self.most)) for start in range(0, self.most, step))

    def everyones(self, own: Tensor, chunk: slice | None = None) -> Tensor:
        """From (tokens, ...) of this process to (processes x tokens of the chunk, ...) of all."""
        chunk = chunk or slice(0, self.most)
        part = own[chunk]
        if missing := chunk.stop - chunk.start - len(part):
            part = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
        return gathered(part.reshape(-1)).view(-1, *own.shape[1:])

    def own(self, whole: Tensor, chunk: slice) -> Tensor:
        """From each process's addends for (processes x tokens of the chunk, ...) to the sums for its own tokens."""
        own = scattered(whole.reshape(-1)).view(-1, *whole.shape[1:])
        return own[: max(self.counts[self.rank] - chunk.start, 0)]

    def pick(self, of_all: Tensor, chunk: slice) -> Tensor:
        """The chunk's part of what is there for all tokens: (processes x most) -> (processes x tokens of the chunk)."""
        return of_all.view(len(self.counts), -1)[:, chunk].reshape(-1)


def tokens(own: int, rank: int, size: int, device: torch.device) -> Tokens:
    """Tell each other how many tokens there are."""
    if size == 1:
        return Tokens((own,), 0)
    return Tokens(tuple(gathered(torch.tensor([own], device=device)).tolist()), rank)
