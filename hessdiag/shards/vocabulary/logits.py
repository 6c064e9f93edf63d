"""A linear layer that is given the parts of its weight one after the other: all of its outputs are wanted here."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hessdiag.machine.collectives import gathered, scattered
from hessdiag.shards.vocabulary.matrix import Block, Matrix, blocks

AT_ONCE = 2**21  # numbers of the weight that are together at one time


def linear(x: Tensor, piece: Tensor, bias: Tensor | None, matrix: Matrix) -> Tensor:
    """`F.linear` of a weight in pieces, differentiable twice.

    Every process has to call it. What is sent is the weight, as often as for any other layer.

    Args:
        x: Inputs (..., width).
        piece: What this process has of the weight.
        bias: The whole bias, if there is one.
        matrix: How the weight lies in pieces.

    Returns:
        Outputs (..., rows).

    >>> linear(torch.tensor([[1.0, -1.0]]), torch.arange(6.0), None, Matrix(3, 2))
    tensor([[-1., -1., -1.]])
    """
    y: Tensor = _Outputs.apply(x.reshape(-1, matrix.width), piece, bias, matrix)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], matrix.rows)


class _Outputs(Function):
    """From inputs (tokens, width), the piece of a weight and a whole bias to outputs (tokens, rows)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, piece: Tensor, bias: Tensor | None, matrix: Matrix) -> Tensor:
        ctx.save_for_backward(x, piece)
        ctx.matrix = matrix
        return outputs(x, piece, bias, matrix)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, piece = ctx.saved_tensors
        return *slopes(ctx.needs_input_grad, slope, x, piece, ctx.matrix), None


def outputs(x: Tensor, piece: Tensor, bias: Tensor | None, matrix: Matrix) -> Tensor:
    """The same of x (tokens, width), with no graph."""
    y = x.new_zeros(len(x), matrix.rows) if bias is None else bias.repeat(len(x), 1)
    for step in _steps(matrix):
        for block, weight in _together(piece, step, matrix):
            y[:, block.rows].addmm_(x[:, block.columns], weight.T)
    return y


def slopes(
    needs: tuple[bool, ...], slope: Tensor, x: Tensor, piece: Tensor, matrix: Matrix
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """From the outputs' slopes to those of x, weight and bias, of which `None` where none is needed."""
    of_x, of_weight = None, None
    if needs[0] or needs[1]:
        of_x, of_weight = _Slopes.apply(slope, x, piece, matrix, needs[:2])  # type: ignore[no-untyped-call]
    return of_x, of_weight, slope.sum(0) if needs[2] else None


class _Slopes(Function):
    """The adjoint of `_Outputs` in x and in the weight."""

    @staticmethod
    def forward(
        ctx: Any, slope: Tensor, x: Tensor, piece: Tensor, matrix: Matrix, needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(slope, x, piece)
        ctx.matrix = matrix
        ctx.set_materialize_grads(False)
        of_x = _of_x(slope, piece, matrix) if needs[0] else None
        return of_x, _of_weight(slope, x, matrix) if needs[1] else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_x: Tensor | None, for_weight: Tensor | None) -> Any:
        slope, x, piece = ctx.saved_tensors
        needs, matrix = ctx.needs_input_grad, ctx.matrix
        found: list[Tensor | None] = [None] * 5
        if needs[0]:
            parts = [(for_x, piece), (x, for_weight)]
            sums = [outputs(a, b, None, matrix) for a, b in parts if a is not None and b is not None]
            found[0] = sum(sums[1:], sums[0]) if sums else None
        if needs[1] and for_weight is not None:
            found[1] = _of_x(slope, for_weight, matrix)
        if needs[2] and for_x is not None:
            found[2] = _of_weight(slope, for_x, matrix)
        return tuple(found)


def _of_x(slope: Tensor, piece: Tensor, matrix: Matrix) -> Tensor:
    x = slope.new_zeros(len(slope), matrix.width)
    for step in _steps(matrix):
        for block, weight in _together(piece, step, matrix):
            x[:, block.columns].addmm_(slope[:, block.rows], weight)
    return x


def _of_weight(slope: Tensor, x: Tensor, matrix: Matrix) -> Tensor:
    piece = x.new_zeros(matrix.piece)
    for step in _steps(matrix):
        whole = x.new_zeros(matrix.size * (step.stop - step.start))
        for block, weight in _parts(whole, step, matrix):
            torch.mm(slope[:, block.rows].T, x[:, block.columns], out=weight)
        piece[step] = scattered(whole)
    return piece


def _steps(matrix: Matrix) -> Iterator[slice]:
    """Which numbers of each process's piece are together at one time."""
    most = max(AT_ONCE // matrix.size, 1)
    return (slice(start, min(start + most, matrix.piece)) for start in range(0, matrix.piece, most))


def _together(piece: Tensor, step: slice, matrix: Matrix) -> Iterator[tuple[Block, Tensor]]:
    """The numbers of one step from all processes, by blocks of the weight."""
    return _parts(gathered(piece[step]), step, matrix)


def _parts(whole: Tensor, step: slice, matrix: Matrix) -> Iterator[tuple[Block, Tensor]]:
    for rank, run in enumerate(whole.view(matrix.size, -1)):
        start, stop = matrix.run(rank)
        for block in blocks(min(start + step.start, stop), min(start + step.stop, stop), matrix.width):
            yield block, block.of(run)
