"""Piecewise operations: how far their inputs are from a kink, and what they are on the piece that was taken.

One entry for each operation: from its arguments to margins (zero at the kink, differentiable), the side that autograd
takes there, and a function that computes the same with its choices held, whatever the arguments. Here are those that
bend at certain values; those that choose among entries are in `choices`, with the table of all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

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
        choice: What was chosen, one entry per unit, where margins do not tell: indices, or values of a staircase.
    """

    margins: tuple[Margin, ...]
    held: Callable[..., Any]
    tight: Callable[..., Any] | None = None
    jumps: bool = False
    choice: Tensor | None = None


Rule = Callable[..., Piece]
BENDS: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of functions and methods of torch."""

    def register(function: Rule) -> Rule:
        BENDS.update(dict.fromkeys(names, function))
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


BENDS |= {"softshrink": _shrunk(True), "hardshrink": _shrunk(False)}


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

    def held(x: Tensor, low: Any = low, high: Any = high, **named: Any) -> Tensor:  # bounds may be parameters
        if below is not None:
            x = torch.where(below, low, x)
        return x if above is None else torch.where(above, high, x)

    return Piece(margins, held)


@rule("clamp", "clamp_", "clip", "clip_")
def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Piece:
    piece = _between(x, min, max, 1)
    return replace(piece, held=lambda x, min=None, max=None: piece.held(x, min, max))


@rule("clamp_min", "clamp_min_")
def _clamp_min(x: Tensor, min: Any) -> Piece:
    piece = _between(x, min, None, 1)
    return replace(piece, held=lambda x, min: piece.held(x, min, None))


@rule("clamp_max", "clamp_max_")
def _clamp_max(x: Tensor, max: Any) -> Piece:
    piece = _between(x, None, max, 1)
    return replace(piece, held=lambda x, max: piece.held(x, None, max))


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
