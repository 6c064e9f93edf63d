"""A head and its probabilities, some rows at a time, for the tokens of all processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.shards.vocabulary.matrix import Matrix, Rows
from hessdiag.shards.vocabulary.targets import Targets
from hessdiag.shards.vocabulary.tokens import Tokens

AT_ONCE = 2**20  # logits that are there at one time


@dataclass(frozen=True)
class Head:
    """A head and what its losses are taken against, for the tokens of all processes.

    Attributes:
        matrix: How the weight lies in pieces.
        tokens: How many there are in each process.
        targets: Of all of them.
        dtype: In which probabilities are computed.
    """

    matrix: Matrix
    tokens: Tokens
    targets: Targets
    dtype: torch.dtype

    def chunks(self) -> Iterator[slice]:
        """Which tokens of each process are worked on together."""
        return self.tokens.chunks(self.matrix.width)

    def scores(self, x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """The logits of some rows, or what is bilinear as they are."""
        z = x @ weight.T if bias is None else torch.addmm(bias[first : first + len(weight)], x, weight.T)
        return z.to(self.dtype)

    def rows(self, *several: Rows | None, tokens: int) -> Any:
        """Some rows of several matrices of the same form at once, with the number of the first: (first, parts...)."""
        most = max(AT_ONCE // tokens, 1)
        there = [rows.chunks(most) for rows in several if rows is not None]
        for together in zip(*there, strict=True):
            parts = iter(part for _, part in together)
            yield together[0][0], *(None if rows is None else next(parts) for rows in several)

    def of_this(self, numbers: Tensor, chunk: slice) -> Tensor:
        """This process's part of what every process has computed for the tokens of all."""
        count, rank = self.tokens.counts[self.tokens.rank], self.tokens.rank
        return numbers.view(len(self.tokens.counts), -1)[rank, : max(count - chunk.start, 0)]


@dataclass(frozen=True)
class Saved:
    """Where the losses are differentiated.

    Attributes:
        slope: Of this process's losses.
        x: Its hidden states.
        piece: What it has of the weight.
        bias: The whole bias, if there is one.
        logsumexp: Of the tokens of all processes.
    """

    slope: Tensor
    x: Tensor
    piece: Tensor
    bias: Tensor | None
    logsumexp: Tensor


class Part:
    """A chunk of the tokens of all processes.

    Args:
        head: The head.
        chunk: Which tokens of each process.
        saved: Where the losses are differentiated.
        slope: Of the tokens of all processes.

    Attributes:
        x: Hidden states.
        slope: The slopes of the losses.
        pull: The same times the sum of the targets: what pulls at the logsumexp.
        targets: The chunk's.
    """

    def __init__(self, head: Head, chunk: slice, saved: Saved, slope: Tensor) -> None:
        self._head, self._bias = head, saved.bias
        self.x = head.tokens.everyones(saved.x, chunk)
        self.targets = head.targets.of(head.tokens, chunk)
        self.slope = head.tokens.pick(slope, chunk)
        self.pull = self.slope * self.targets.total(head.matrix.rows)
        self._logsumexp = head.tokens.pick(saved.logsumexp, chunk)[:, None]

    def probabilities(self, weight: Tensor, first: int) -> Tensor:
        """Probabilities p of some rows."""
        return self._head.scores(self.x, weight, self._bias, first).sub_(self._logsumexp).exp_()

    def off(self, p: Tensor, first: int) -> Tensor:
        """Slopes g d of the logits of some rows, in the place of p."""
        return self.targets.subtract(p.mul_(self.pull[:, None]), first, self.slope).to(self.x.dtype)
