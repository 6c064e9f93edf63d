"""A weight of many rows in flat pieces: what of which row lies where, for pieces end in the middle of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.machine.collectives import summed
from hessdiag.shards.layout import bounds, share


@dataclass(frozen=True)
class Block:
    """Some columns of some rows that lie next to each other in a flat run of numbers.

    Attributes:
        rows: Which rows of the weight.
        columns: Which columns; all of them, unless it is one row that is cut.
        at: Where the numbers begin in the run.
    """

    rows: slice
    columns: slice
    at: int

    def of(self, run: Tensor) -> Tensor:
        """The block as a matrix, a view of the run."""
        shape = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return run[self.at : self.at + shape[0] * shape[1]].view(shape)


def blocks(start: int, stop: int, width: int) -> Iterator[Block]:
    """The run of a weight's numbers from `start` to `stop` as blocks: at most a cut row, whole rows and a cut row.

    >>> [(b.rows.start, b.rows.stop, b.columns.start, b.columns.stop) for b in blocks(2, 11, 3)]
    [(0, 1, 2, 3), (1, 3, 0, 3), (3, 4, 0, 2)]
    """
    at = start
    while at < stop:
        row, column = divmod(at, width)
        rows = (stop - at) // width if column == 0 else 0
        end = at + rows * width if rows else min(stop, (row + 1) * width)
        columns = slice(0, width) if rows else slice(column, column + end - at)
        yield Block(slice(row, row + max(rows, 1)), columns, at - start)
        at = end


@dataclass(frozen=True)
class Matrix:
    """How a weight lies in flat pieces, padded with zeros at the end, one piece in each process.

    Attributes:
        rows: Numbers of classes or tokens.
        width: Numbers of a row.
        rank: Which process this is.
        size: How many there are.
    """

    rows: int
    width: int
    rank: int = 0
    size: int = 1

    @property
    def numbers(self) -> int:
        """Numbers of the weight."""
        return self.rows * self.width

    @property
    def piece(self) -> int:
        """Numbers of a piece, padding included."""
        return share(self.numbers, self.size)

    def run(self, rank: int) -> tuple[int, int]:
        """From where to where a process has the weight's numbers."""
        return bounds(self.numbers, rank, self.size)

    @cached_property
    def cut(self) -> tuple[int, ...]:
        """The rows that do not lie in one piece."""
        ends = (self.run(rank)[1] for rank in range(self.size - 1))
        return tuple(dict.fromkeys(end // self.width for end in ends if end % self.width))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What this process has."""
        return tuple(blocks(*self.run(self.rank), self.width))

    @property
    def begun(self) -> slice:
        """Which of the cut rows begin in this process's piece: one at most."""
        start, stop = self.run(self.rank)
        own = [index for index, row in enumerate(self.cut) if start <= row * self.width < stop]
        return slice(own[0], own[0] + 1) if own else slice(0, 0)

    def complete(self, piece: Tensor) -> "Rows":
        """All rows that begin in this process's piece; the cut ones are completed by the others."""
        if not self.cut:
            return Rows(self, piece, piece.new_zeros(0, self.width))
        cut = piece.new_zeros(len(self.cut), self.width)
        for part, inside in self._ends(piece, cut):
            inside.copy_(part)
        return Rows(self, piece, summed(cut))

    def empty(self, like: Tensor) -> "Rows":
        """Zeros for the same rows, to be filled in and then `returned`."""
        return Rows(self, torch.zeros_like(like), like.new_zeros(len(self.cut), self.width))

    def returned(self, rows: "Rows") -> Tensor:
        """The piece of what was filled in in the processes where rows begin."""
        if self.cut:
            for part, inside in self._ends(rows.piece, summed(rows.cut)):
                part.copy_(inside)
        return rows.piece

    def _ends(self, piece: Tensor, cut: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What this process has of the cut rows: in its piece, and in the tensor of all cut rows."""
        for block in self.blocks:
            if block.rows.start in self.cut:
                yield block.of(piece)[0], cut[self.cut.index(block.rows.start), block.columns]


@dataclass(frozen=True)
class Rows:
    """The complete rows of one process.

    Attributes:
        matrix: Whose rows they are.
        piece: In which the uncut ones lie.
        cut: All cut rows of the weight, or what this process has to give for them.
    """

    matrix: Matrix
    piece: Tensor
    cut: Tensor

    def chunks(self, most: int) -> Iterator[tuple[int, Tensor]]:
        """Views of at most so many rows at once, with the number of the first."""
        for block in self.matrix.blocks:
            if block.rows.start not in self.matrix.cut:
                rows = block.of(self.piece)
                for start in range(0, len(rows), most):
                    yield block.rows.start + start, rows[start : start + most]
        begun = self.matrix.begun
        if begun.stop:
            yield self.matrix.cut[begun.start], self.cut[begun]
