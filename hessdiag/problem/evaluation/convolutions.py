"""Convolutions whose second derivative on a CPU is made of the same three kernels as their first.

torch's own takes the one that belongs to the weight for a convolution with a filter as large as the image, at two to
three times what the kernel for gradients of weights takes, after copies of both factors.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from hessdiag.problem.replaced import replaced

_DIMENSIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
_DTYPES = (torch.float32, torch.float64)

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]  # stride, padding, dilation, groups
Mask = tuple[bool, bool, bool]  # which of the gradients of input, weight and bias are wanted


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    found: Tensor = torch.convolution(x, weight, bias, stride, padding, dilation, False, (0,) * len(stride), groups)
    return found


def _backward(
    g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, mask: Mask
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = geometry
    none = (0,) * len(stride)
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        g, x, weight, [weight.shape[0]], stride, padding, dilation, False, none, groups, mask
    )
    return found


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _forward(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        mask = ctx.needs_input_grad[:3]
        run = _Gradients.apply if torch.is_grad_enabled() else _backward
        return *run(g, x, weight, ctx.geometry, mask), None


class _Gradients(Function):
    """The gradients of input, weight and bias, linear in g, and in weight or input."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, mask: Mask
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return _backward(g, x, weight, geometry, mask)

    @staticmethod
    def backward(
        ctx: Any, of_input: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None
    ) -> tuple[Any, ...]:
        g, x, weight = ctx.saved_tensors
        geometry = ctx.geometry
        for_g, for_x, for_weight = ctx.needs_input_grad[:3]
        to_g = to_x = to_weight = None
        if of_weight is not None:
            if for_g:
                to_g = _forward(x, of_weight, of_bias, geometry)
            if for_x:
                to_x = _backward(g, x, of_weight, geometry, (True, False, False))[0]
        elif of_bias is not None and for_g:
            to_g = of_bias.view(-1, *(1,) * (g.ndim - 2)).expand_as(g)
        if of_input is not None:
            if for_g:
                more = _forward(of_input, weight, None, geometry)
                to_g = more if to_g is None else to_g + more
            if for_weight:
                to_weight = _backward(g, of_input, weight, geometry, (False, True, False))[1]
        return to_g, to_x, to_weight, None, None


def _convolved(run: Callable[..., Tensor], dimensions: int) -> Callable[..., Tensor]:
    """The same function of torch, by way of `_Convolution` where that is known to be the same."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or not _plain(input, weight, bias, dimensions):
            return run(input, weight, bias, stride, padding, dilation, groups)
        sizes = (_each(size, dimensions) for size in (stride, padding, dilation))
        found: Tensor = _Convolution.apply(input, weight, bias, (*sizes, groups))  # type: ignore[no-untyped-call]
        return found

    return convolution


def _each(size: Any, dimensions: int) -> tuple[int, ...]:
    """A size for each dimension."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * dimensions if len(sizes) == 1 else sizes


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, dimensions: int) -> bool:
    """Whether these are batches of numbers on a CPU, and no transform of torch is at work on them."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        all(type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type == "cpu" for tensor in tensors)
        and all(tensor.dtype == x.dtype for tensor in tensors)
        and x.dtype in _DTYPES
        and x.ndim == weight.ndim == dimensions + 2
        and not torch.is_autocast_enabled("cpu")
        and torch.is_grad_enabled()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def plain_convolutions() -> AbstractContextManager[None]:
    """Convolutions on a CPU by the kernels for gradients, in the second derivative too."""
    home = torch.nn.functional
    return replaced(home, **{name: _convolved(getattr(home, name), of) for name, of in _DIMENSIONS.items()})
