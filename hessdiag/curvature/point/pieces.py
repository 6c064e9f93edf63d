"""Piecewise operations: how far their inputs are from a kink, and what they are on the piece that was taken.

One entry for each operation: from its arguments to margins (zero at the kink, differentiable), the side that autograd
takes there, and a function that computes the same with its choices held, whatever the arguments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Side = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Margin:
    """Distances of units from a kink.

    Attributes:
        values: Zero at the kink, one number per unit.
        side: Sign of the margin on the side whose derivative autograd takes at zero; 0 where it takes neither's.
    """

    values: Tensor
    side: Side


@dataclass(frozen=True)
class Piece:
    """One call of a piecewise operation.

    Attributes:
        margins: Of its units.
        held: The same call with other arguments and the choices of this one.
        tight: Likewise where `held` leaves a kink at exactly zero alone, for its square is smooth; `None` elsewhere.
        jumps: Whether the output itself jumps between pieces, as rounding does.
    """

    margins: tuple[Margin, ...]
    held: Callable[..., Any]
    tight: Callable[..., Any] | None = None
    jumps: bool = False


Rule = Callable[..., Piece]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of functions and methods of torch."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@rule("relu", "relu_")
def _relu(x: Tensor, inplace: bool = False) -> Piece:
    on = x.detach() > 0
    return Piece((Margin(x, -1),), lambda x, inplace=False: x * on)


@rule("leaky_relu", "leaky_relu_")
def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Piece:
    on = x.detach() > 0
    return Piece((Margin(x, -1),), lambda x, *rest, **named: torch.where(on, x, negative_slope * x))


@rule("prelu")
def _prelu(x: Tensor, weight: Tensor) -> Piece:
    on = x.detach() > 0

    def held(x: Tensor, weight: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 and weight.numel() > 1 else (-1,)
        return torch.where(on, x, weight.reshape(shape) * x)

    return Piece((Margin(x, -1),), held)


def _exponential(x: Tensor, slope: float, alpha: float, width: float) -> Piece:
    """X times `slope` above zero, alpha (exp(x / width) - 1) below: ELU and its kin."""
    on = x.detach() > 0

    def held(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        return torch.where(on, slope * x, alpha * torch.expm1(x / width))

    return Piece((Margin(x, -1),), held)


@rule("elu", "elu_")
def _elu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Piece:
    return _exponential(x, 1.0, alpha, 1.0)


@rule("celu", "celu_")
def _celu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Piece:
    return _exponential(x, 1.0, alpha, alpha)


@rule("selu", "selu_")
def _selu(x: Tensor, inplace: bool = False) -> Piece:
    scale = 1.0507009873554804934193349852946
    return _exponential(x, scale, scale * 1.6732632423543772848170429916717, 1.0)


@rule("threshold", "threshold_", "_threshold")
def _threshold(x: Tensor, threshold: float, value: float, inplace: bool = False) -> Piece:
    on = x.detach() > threshold
    return Piece((Margin(x - threshold, -1),), lambda x, *rest, **named: torch.where(on, x, value))


def _shrunk(moves: bool) -> Rule:
    def shrink(x: Tensor, lambd: float = 0.5) -> Piece:
        up, down = x.detach() > lambd, x.detach() < -lambd
        shift = lambd * (down.to(x) - up.to(x)) if moves else torch.zeros_like(x)
        return Piece((Margin(x.abs() - lambd, -1),), lambda x, *rest, **named: (x + shift) * (up | down))

    return shrink


RULES |= {"softshrink": _shrunk(True), "hardshrink": _shrunk(False)}


def _between(x: Tensor, low: Any, high: Any, side: Side) -> Piece:
    """X within two bounds (numbers, tensors or `None`), the nearer bound beyond them."""
    below = x.detach() < low if low is not None else None
    above = x.detach() > high if high is not None else None
    if side < 0:
        below = x.detach() <= low if low is not None else None
        above = x.detach() >= high if high is not None else None
    margins = tuple(
        Margin(values, side)
        for values in (None if low is None else x - low, None if high is None else high - x)
        if values is not None
    )

    def held(x: Tensor, *bounds: Any, **named: Any) -> Tensor:
        if below is not None:
            x = torch.where(below, low, x)
        return x if above is None else torch.where(above, high, x)

    return Piece(margins, held)


@rule("clamp", "clamp_", "clip", "clip_")
def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Piece:
    return _between(x, min, max, 1)


@rule("clamp_min", "clamp_min_")
def _clamp_min(x: Tensor, min: Any) -> Piece:
    return _between(x, min, None, 1)


@rule("clamp_max", "clamp_max_")
def _clamp_max(x: Tensor, max: Any) -> Piece:
    return _between(x, None, max, 1)


@rule("hardtanh", "hardtanh_")
def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Piece:
    return _between(x, min_val, max_val, -1)


@rule("relu6")
def _relu6(x: Tensor, inplace: bool = False) -> Piece:
    return _between(x, 0.0, 6.0, -1)


@rule("hardsigmoid")
def _hardsigmoid(x: Tensor, inplace: bool = False) -> Piece:
    piece = _between(x, -3.0, 3.0, -1)
    return Piece(piece.margins, lambda x, *rest, **named: (piece.held(x) + 3) / 6)


@rule("hardswish")
def _hardswish(x: Tensor, inplace: bool = False) -> Piece:
    piece = _between(x, -3.0, 3.0, 0)
    return Piece(piece.margins, lambda x, *rest, **named: x * (piece.held(x) + 3) / 6)


def _absolute(x: Tensor, sign: Tensor) -> Tensor:
    """|x| on the side of `sign`; at exactly zero |x| itself, for |x|^2 is smooth there."""
    return torch.where(sign == 0, x.abs(), x * sign)


@rule("abs", "abs_", "absolute", "absolute_", "__abs__")
def _abs(x: Tensor) -> Piece:
    sign = x.detach().sign()
    return Piece((Margin(x, 0),), lambda x: _absolute(x, sign), lambda x: x * sign)


def _reduced(values: Tensor, reduction: str) -> Tensor:
    return values if reduction == "none" else values.sum() if reduction == "sum" else values.mean()


@rule("l1_loss")
def _l1_loss(a: Tensor, b: Tensor, *rest: Any, reduction: str = "mean", **named: Any) -> Piece:
    sign = (a - b).detach().sign()
    return Piece(
        (Margin(a - b, 0),),
        lambda a, b, *rest, **named: _reduced(_absolute(a - b, sign), reduction),
        lambda a, b, *rest, **named: _reduced((a - b) * sign, reduction),
    )


@rule("huber_loss")
def _huber_loss(a: Tensor, b: Tensor, reduction: str = "mean", delta: float = 1.0, **named: Any) -> Piece:
    return _quadratic_core(a, b, reduction, delta, 1.0)


@rule("smooth_l1_loss")
def _smooth_l1_loss(
    a: Tensor, b: Tensor, *rest: Any, reduction: str = "mean", beta: float = 1.0, **named: Any
) -> Piece:
    return _l1_loss(a, b, reduction=reduction) if beta == 0 else _quadratic_core(a, b, reduction, beta, 1 / beta)


def _quadratic_core(a: Tensor, b: Tensor, reduction: str, width: float, slope: float) -> Piece:
    """Slope d^2 / 2 for |d| < width, slope width (|d| - width / 2) beyond."""
    d = (a - b).detach()
    inside, sign = d.abs() < width, d.sign()

    def held(a: Tensor, b: Tensor, *rest: Any, **named: Any) -> Tensor:
        d = a - b
        return _reduced(slope * torch.where(inside, d * d / 2, width * (d * sign - width / 2)), reduction)

    return Piece((Margin((a - b).abs() - width, 0),), held)


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

        return Piece((Margin(_runner_up(x, dim, up), 1),), held)

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
        return Piece((Margin(_runner_up(flat, -1, up), 0),), lambda x, *rest, **named: (x * ties).sum(dims, keepdim))

    return rule


RULES |= {"max": _extreme(True), "min": _extreme(False), "amax": _shared(True), "amin": _shared(False)}


def _ordered(name: str) -> Rule:
    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        found = getattr(torch, name)(x.detach(), *rest, **named)
        if isinstance(found, Tensor):  # the median of all
            flat = x.flatten()
            place = (flat.detach() == found).nonzero()[0, 0]
            return Piece((Margin(flat.sort().values.diff(), 1),), lambda x, *rest, **named: x.flatten()[place])
        dim = named.get("dim", rest[1 if name in ("topk", "kthvalue") else 0] if len(rest) > (name != "sort") else -1)
        dim = dim if isinstance(dim, int) else -1
        keep = found[1].ndim == x.ndim
        index = found[1] if keep else found[1].unsqueeze(dim)

        def held(x: Tensor, *rest: Any, **named: Any) -> Any:
            values = x.gather(dim, index)
            return type(found)((values if keep else values.squeeze(dim), found[1]))

        return Piece((Margin(x.sort(dim).values.diff(dim=dim), 1),), held)

    return rule


RULES |= {name: _ordered(name) for name in ("sort", "topk", "median", "kthvalue")}


def _pooled(name: str, dims: int, pair: bool) -> Rule:
    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        settings = {key: value for key, value in named.items() if key != "return_indices"}
        index = getattr(functional, name)(x.detach(), *rest, **settings, return_indices=True)[1]
        margins: tuple[Margin, ...] = ()
        if dims == 2 and name == "max_pool2d" and x.ndim == 4:
            margins = (Margin(_window_gaps(x, *rest, **settings), 1),)

        def held(x: Tensor, *rest: Any, **named: Any) -> Any:
            values = x.flatten(-dims).gather(-1, index.flatten(-dims)).view(index.shape)
            return (values, index) if pair else values

        return Piece(margins, held)

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
        RULES |= {_kind: _pooled(_kind, _dims, False), f"{_kind}_with_indices": _pooled(_kind, _dims, True)}


def _compared(names: tuple[str, ...], compare: Callable[[Any, Any], Tensor], closed: bool) -> None:
    """A mask: above or below, with the side that equality belongs to."""

    def rule(a: Any, b: Any) -> Piece:
        mask = compare(a, b)
        side: Side = -1 if closed else 1
        if names[0].startswith("g"):
            side = 1 if closed else -1
        return Piece((Margin(a - b, side),), lambda a, b: mask)

    RULES.update(dict.fromkeys(names, rule))


_compared(("gt", "__gt__", "greater"), torch.gt, False)
_compared(("ge", "__ge__", "greater_equal"), torch.ge, True)
_compared(("lt", "__lt__", "less"), torch.lt, False)
_compared(("le", "__le__", "less_equal"), torch.le, True)


def _stepped(name: str) -> Rule:
    """Staircases: constant on each piece."""

    def rule(x: Tensor, *rest: Any, **named: Any) -> Piece:
        value = getattr(torch, name)(x.detach(), *rest, **named)
        return Piece((), lambda x, *rest, **named: value, jumps=True)

    return rule


for _name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "argmax", "argmin"):
    RULES |= {_name: _stepped(_name), f"{_name}_": _stepped(_name)}
