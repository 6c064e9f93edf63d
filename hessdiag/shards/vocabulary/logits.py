"""A linear layer that is given the parts of its weight one after the other: all of its outputs are wanted here."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessdiag.machine.collectives import gathered, scattered
from hessdiag.shards.vocabulary.each import each, no_third
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
        found = iter(_Slopes.apply(matrix, needs[:2], slope, x, piece))  # type: ignore[no-untyped-call]
        of_x, of_weight = (next(found) if need else None for need in needs[:2])
    return of_x, of_weight, slope.sum(0) if needs[2] else None


class _Slopes(Function):
    """The adjoint of `_Outputs` in x and in the weight, as far as it is needed."""

    @staticmethod
    def forward(matrix: Matrix, needs: tuple[bool, bool], slope: Tensor, x: Tensor, piece: Tensor) -> Any:
        found = (_of_x(slope, piece, matrix),) if needs[0] else ()
        return (*found, _of_weight(slope, x, matrix)) if needs[1] else found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.matrix, ctx.needs = inputs[:2]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        no_third()
        given = iter(cotangents)
        for_x, for_weight = (next(given) if need else None for need in ctx.needs)
        wants = ctx.needs_input_grad[2:]
        needs = (
            wants[0] and not (for_x is None and for_weight is None),
            wants[1] and for_weight is not None,
            wants[2] and for_x is not None,
        )
        if not any(needs):
            return (None,) * 5
        found = iter(_Second.apply(ctx.matrix, needs, *ctx.saved_tensors, for_x, for_weight))  # type: ignore[no-untyped-call]
        return (None, None, *(next(found) if need else None for need in needs))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Slopes.forward, info, in_dims, *args)


class _Second(Function):
    """The derivative of that against cotangents, in slope, x and weight, as far as it is needed."""

    @staticmethod
    def forward(
        matrix: Matrix,
        needs: tuple[bool, bool, bool],
        slope: Tensor,
        x: Tensor,
        piece: Tensor,
        for_x: Tensor | None,
        for_weight: Tensor | None,
    ) -> tuple[Tensor, ...]:
        found = []
        if needs[0]:
            pairs = ((for_x, piece), (x, for_weight))
            sums = [outputs(a, b, None, matrix) for a, b in pairs if a is not None and b is not None]
            found.append(sums[0].add_(sums[1]) if len(sums) > 1 else sums[0])
        if needs[1] and for_weight is not None:
            found.append(_of_x(slope, for_weight, matrix))
        if needs[2] and for_x is not None:
            found.append(_of_weight(slope, for_x, matrix))
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Second.forward, info, in_dims, *args)


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
