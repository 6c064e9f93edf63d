"""A small parameter, such as a bias, that is whole in every process while it is used."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessdiag.machine.collectives import gathered, scattered
from hessdiag.machine.ranks import ranks
from hessdiag.shards.vocabulary.each import each


def whole(piece: Tensor, numbers: int) -> Tensor:
    """All numbers of a parameter in pieces; any number of times differentiable."""
    found: Tensor
    (found,) = _Together.apply(piece, numbers)  # type: ignore[no-untyped-call]
    return found


class _Together(Function):
    @staticmethod
    def forward(piece: Tensor, numbers: int) -> tuple[Tensor]:
        return (gathered(piece)[:numbers].clone(),)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.piece = len(inputs[0])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Apart.apply(slope, ctx.piece)[0], None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Together.forward, info, in_dims, *args)


class _Apart(Function):
    """The adjoint: the sum of what all processes have to say, padded with zeros, in pieces of so many numbers."""

    @staticmethod
    def forward(slope: Tensor, piece: int) -> tuple[Tensor]:
        return (scattered(torch.cat([slope, slope.new_zeros(ranks()[1] * piece - len(slope))])),)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.numbers = len(inputs[0])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Together.apply(slope, ctx.numbers)[0], None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Apart.forward, info, in_dims, *args)
