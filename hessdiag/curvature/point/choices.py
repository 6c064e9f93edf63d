"""Piecewise operations that choose among entries, compare or jump; and the table of all piecewise operations."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hessdiag.curvature.point.pieces import BENDS, Margin, Piece, Rule, Side

CHOICES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of functions and methods of torch."""

    def register(function: Rule) -> Rule:
        CHOICES.update(dict.fromkeys(names, function))
        return function

    return register


def _larger(a: Tensor, b: Tensor, up: bool) -> Piece:
    first, second = (a.detach() > b.detach(), a.detach() < b.detach())
    if not up:
        first, second = second, first
    return Piece((Margin(a - b, 0),), lambda a, b: torch.where(first, a, torch.where(second, b, (a + b) / 2)))


@rule("maximum", "fmax")
def _maximum(a: Tensor, b: Tensor) -> Piece:
    return _larger(a, b, True)


@rule("minimum", "fmin")
def _minimum(a: Tensor, b: Tensor) -> Piece:
    return _larger(a, b, False)


def _runner_up(x: Tensor, dim: int, up: bool) -> Tensor:
    """How far the extreme of each slice is ahead of the next entry."""
    if x.shape[dim] < 2:
        return x.new_zeros(0)
    top = x.topk(2, dim, largest=up).values
    gap = top.narrow(dim, 0, 1) - top.narrow(dim, 1, 1)
    return gap if up else -gap


def _extreme(up: bool) -> Rule:
    name = "max" if up else "min"

    def rule(x: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Piece:
        other = dim if isinstance(dim, Tensor) else named.get("other")
        if isinstance(other, Tensor):
            piece = _larger(x, other, up)
            return Piece(piece.margins, lambda x, *rest, **named: piece.held(x, rest[0] if rest else named["other"]))
        if dim is None:
            return _shared(up)(x)
        index = (x.detach().max if up else x.detach().min)(dim, True)[1]
        shape = index if keepdim else index.squeeze(dim)

        def held(x: Tensor, *rest: Any, **named: Any) -> Any:
            values = x.gather(dim, index)
            return getattr(torch.return_types, name)((values if keepdim else values.squeeze(dim), shape))

        return Piece((Margin(_runner_up(x, dim, up), 1),), held, choice=index)

    return rule


def _shared(up: bool) -> Rule:
    """Extremes whose derivative is shared among ties: over several dimensions, or all."""

    def rule(x: Tensor, dim: Any = (), keepdim: bool = False, **named: Any) -> Piece:
        dims = (dim,) if isinstance(dim, int) else tuple(dim) or tuple(range(x.ndim))
        extreme = (x.detach().amax if up else x.detach().amin)(dims, True)
        ties = (x.detach() == extreme).to(x)
        ties = ties / ties.sum(dims, True)
        kept = [d for d in range(x.ndim) if d not in {d % x.ndim for d in dims}]
        flat = x.permute(*kept, *(d % x.ndim for d in dims)).flatten(len(kept)) if x.ndim else x.reshape(1)
        first = (flat.detach().argmax if up else flat.detach().argmin)(-1)
        margins = (Margin(_runner_up(flat, -1, up), 0),)
        return Piece(margins, lambda x, *rest, **named: (x * ties).sum(dims, keepdim), choice=first)

    return rule


CHOICES |= {"max": _extreme(True), "min": _extreme(False), "amax": _shared(True), "amin": _shared(False)}


def _ordered(name: str) -> Rule:
    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        found = getattr(torch, name)(x.detach(), *rest, **named)
        if isinstance(found, Tensor):  # the median of all
            flat = x.flatten()
            place = (flat.detach() == found).nonzero()[0, 0]
            margins = (Margin(flat.sort().values.diff(), 1),)
            return Piece(margins, lambda x, *rest, **named: x.flatten()[place], choice=place)
        dim = named.get("dim", rest[1 if name in ("topk", "kthvalue") else 0] if len(rest) > (name != "sort") else -1)
        dim = dim if isinstance(dim, int) else -1
        keep = found[1].ndim == x.ndim
        index = found[1] if keep else found[1].unsqueeze(dim)

        def held(x: Tensor, *rest: Any, **named: Any) -> Any:
            values = x.gather(dim, index)
            return type(found)((values if keep else values.squeeze(dim), found[1]))

        return Piece((Margin(x.sort(dim).values.diff(dim=dim), 1),), held, choice=index)

    return rule


CHOICES |= {name: _ordered(name) for name in ("sort", "topk", "median", "kthvalue")}


def _pooled(name: str, dims: int, pair: bool) -> Rule:
    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        settings = {key: value for key, value in named.items() if key != "return_indices"}
        index = getattr(functional, name)(x.detach(), *rest, **settings, return_indices=True)[1]
        margins: tuple[Margin, ...] = ()
        if dims == 2 and name == "max_pool2d" and x.ndim == 4 and x.requires_grad:  # else nobody asks how far
            margins = (Margin(_window_gaps(x, *rest, **settings), 1),)

        def held(x: Tensor, *rest: Any, **named: Any) -> Any:
            values = x.flatten(-dims).gather(-1, index.flatten(-dims)).view(index.shape)
            return (values, index) if pair else values

        return Piece(margins, held, choice=index)

    return rule


def _window_gaps(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    **named: Any,
) -> Tensor:
    """How far the largest entry of each window is ahead of the next one."""
    low = float(torch.finfo(x.dtype).min) / 4
    pad = (padding, padding) if isinstance(padding, int) else tuple(padding)
    padded = functional.pad(x, (pad[-1], pad[-1], pad[0], pad[0]), value=low)
    size = kernel_size if isinstance(kernel_size, int) else tuple(kernel_size)
    area = size * size if isinstance(size, int) else math.prod(size)
    windows = functional.unfold(padded, size, dilation=dilation, stride=stride or size)
    return _runner_up(windows.view(len(x), x.shape[1], area, -1), 2, True)


for _dims in (1, 2, 3):
    for _kind in (f"max_pool{_dims}d", f"adaptive_max_pool{_dims}d"):
        CHOICES |= {_kind: _pooled(_kind, _dims, False), f"{_kind}_with_indices": _pooled(_kind, _dims, True)}


def _compared(names: tuple[str, ...], compare: Callable[[Any, Any], Tensor], closed: bool) -> None:
    """A mask: above or below, with the side that equality belongs to."""

    def rule(a: Any, b: Any) -> Piece:
        mask = compare(a, b)
        side: Side = -1 if closed else 1
        if names[0].startswith("g"):
            side = 1 if closed else -1
        return Piece((Margin(a - b, side),), lambda a, b: mask)

    CHOICES.update(dict.fromkeys(names, rule))


_compared(("gt", "__gt__", "greater"), torch.gt, False)
_compared(("ge", "__ge__", "greater_equal"), torch.ge, True)
_compared(("lt", "__lt__", "less"), torch.lt, False)
_compared(("le", "__le__", "less_equal"), torch.le, True)


def _stepped(name: str) -> Rule:
    """Staircases: constant on each piece."""

    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        value = getattr(torch, name)(x.detach(), *rest, **named)
        return Piece((), lambda x, *rest, **named: value, jumps=True, choice=value)

    return rule


for _name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "argmax", "argmin"):
    CHOICES |= {_name: _stepped(_name), f"{_name}_": _stepped(_name)}


RULES: dict[str, Rule] = BENDS | CHOICES
