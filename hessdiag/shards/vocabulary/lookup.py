"""Embeddings by rows: each process looks up what it has, for the tokens of all, and adds nothing for the rest."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from hessdiag.problem.batches.indices import watching
from hessdiag.shards.vocabulary.each import each
from hessdiag.shards.vocabulary.matrix import Block, Matrix
from hessdiag.shards.vocabulary.tokens import Tokens, tokens


@dataclass(frozen=True)
class _Ids:
    """What is looked up.

    Attributes:
        matrix: Where the weight lies.
        tokens: How many there are in each process.
        ids: Of the tokens of all processes.
        padding: The row that gets no gradient.
    """

    matrix: Matrix
    tokens: Tokens
    ids: Tensor
    padding: int | None

    def rows(self, block: Block, chunk: slice, *, derivative: bool) -> tuple[Tensor, Tensor]:
        """For each token the row within the block, and whether it is there at all."""
        ids = self.tokens.pick(self.ids, chunk)
        last = block.rows.stop - block.rows.start - 1
        there = (ids >= block.rows.start) & (ids < block.rows.stop)
        if derivative and self.padding is not None:
            there &= ids != self.padding
        return (ids - block.rows.start).clamp(0, last), there


def look_up(ids: Tensor, piece: Tensor, matrix: Matrix, padding: int | None = None) -> Tensor:
    """`F.embedding` of a weight in pieces; any number of times differentiable.

    Every process has to call it, each for its own tokens.

    Args:
        ids: Of this process's tokens, of any shape.
        piece: What this process has of the weight.
        matrix: How the weight lies in pieces.
        padding: The row that gets no gradient.

    Returns:
        The rows, of shape (*ids.shape, width).

    Raises:
        IndexError: if an id names no row, in any of the processes.

    >>> look_up(torch.tensor([2, 0]), torch.arange(6.0), Matrix(3, 2))
    tensor([[4., 5.],
            [0., 1.]])
    """
    count = tokens(ids.numel(), matrix.rank, matrix.size, ids.device)
    everyones = count.everyones(ids.reshape(-1))
    if everyones.numel() and (ids.device.type == "cpu" or watching()):  # else a GPU would be waited for each time
        least, most = everyones.aminmax()
        if int(least) < 0 or int(most) >= matrix.rows:
            raise IndexError(f"ids run from {int(least):,} to {int(most):,}; the table has {matrix.rows:,} rows")
    padding = None if padding is None else padding % matrix.rows
    (rows,) = _Rows.apply(piece, _Ids(matrix, count, everyones, padding), False)  # type: ignore[no-untyped-call]
    return cast(Tensor, rows).view(*ids.shape, matrix.width)


class _Rows(Function):
    """From the weight to the tokens' rows; of which rows of padding are left out where it is a derivative."""

    @staticmethod
    def forward(piece: Tensor, ids: _Ids, derivative: bool) -> tuple[Tensor]:
        width = ids.matrix.width
        parts = [piece.new_zeros(0, width)]
        for chunk in ids.tokens.chunks(width):
            found = piece.new_zeros(ids.matrix.size * (chunk.stop - chunk.start), width)
            for block in ids.matrix.blocks:
                rows, there = ids.rows(block, chunk, derivative=derivative)
                found[:, block.columns] += torch.where(there[:, None], block.of(piece)[rows], 0)
            parts.append(ids.tokens.own(found, chunk))
        return (torch.cat(parts),)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.ids = inputs[1]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Sums.apply(slope, ctx.ids)[0], None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Rows.forward, info, in_dims, *args)


class _Sums(Function):
    """The adjoint: from the tokens to sums for each row of the weight."""

    @staticmethod
    def forward(slope: Tensor, ids: _Ids) -> tuple[Tensor]:
        piece = slope.new_zeros(ids.matrix.piece)
        for chunk in ids.tokens.chunks(ids.matrix.width):
            everyones = ids.tokens.everyones(slope, chunk)
            for block in ids.matrix.blocks:
                rows, there = ids.rows(block, chunk, derivative=True)
                values = torch.where(there[:, None], everyones[:, block.columns], 0)
                # unlike index_add_, it adds in one order on a GPU, too
                block.of(piece).index_put_((rows,), values, accumulate=True)
        return (piece,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.ids = inputs[1]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Rows.apply(slope, ctx.ids, True)[0], None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Sums.forward, info, in_dims, *args)
