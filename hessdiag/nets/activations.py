"""Elementwise activations with their first two derivatives in closed form, for whole ensembles of networks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.errors import SpecError
from hessdiag.suggest import question

LEAKY_SLOPE = 0.01  # torch's default


@dataclass(frozen=True)
class Activation:
    """An activation phi and its derivatives, each elementwise.

    Attributes:
        function: phi.
        first: phi'.
        second: phi''; `None` where it vanishes almost everywhere.
        slope: For piecewise-linear ones through the origin, the slope left of it (1 linear, 0 ReLU); `None` otherwise.
    """

    function: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor] | None
    slope: float | None


def _piecewise_linear(slope: float) -> Activation:
    def first(a: Tensor) -> Tensor:
        return torch.where(a > 0, torch.ones_like(a), slope)  # of two Python numbers it would be float32

    return Activation(lambda a: a * first(a), first, None, slope)


def _tanh_second(a: Tensor) -> Tensor:
    t = torch.tanh(a)
    return -2 * t * (1 - t * t)


def _normal_density(a: Tensor) -> Tensor:
    return torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda a: a, torch.ones_like, None, 1.0),
    "relu": _piecewise_linear(0.0),
    "leaky_relu": _piecewise_linear(LEAKY_SLOPE),
    "tanh": Activation(torch.tanh, lambda a: 1 - torch.tanh(a) ** 2, _tanh_second, None),
    "gelu": Activation(
        torch.nn.functional.gelu,
        lambda a: torch.special.ndtr(a) + a * _normal_density(a),
        lambda a: (2 - a * a) * _normal_density(a),
        None,
    ),
}


def activation(name: str) -> Activation:
    """Look an activation up.

    Raises:
        SpecError: if the name is unknown.

    >>> float(activation("gelu").first(torch.tensor(0.0)))
    0.5
    """
    if name not in ACTIVATIONS:
        what = f"unknown activation {name!r}: not one of {', '.join(ACTIVATIONS)}.{question(str(name), ACTIVATIONS)}"
        raise SpecError(what, "hessdiag ls activations")
    return ACTIVATIONS[name]
