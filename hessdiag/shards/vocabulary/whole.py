"""A small parameter, such as a bias, that is whole in every process while it is used."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessdiag.machine.collectives import gathered, scattered


def whole(piece: Tensor, numbers: int) -> Tensor:
    """All numbers of a parameter in pieces; any number of times differentiable."""
    found: Tensor = _Together.apply(piece, numbers)  # type: ignore[no-untyped-call]
    return found


class _Together(Function):
    @staticmethod
    def forward(ctx: Any, piece: Tensor, numbers: int) -> Tensor:
        together = gathered(piece)
        ctx.padded = len(together)
        return together[:numbers].clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Apart.apply(slope, ctx.padded), None  # type: ignore[no-untyped-call]


class _Apart(Function):
    """The adjoint: the sum of what all processes have to say, padded with zeros, in pieces."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, padded: int) -> Tensor:
        ctx.numbers = len(slope)
        return scattered(torch.cat([slope, slope.new_zeros(padded - len(slope))]))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return _Together.apply(slope, ctx.numbers), None  # type: ignore[no-untyped-call]
