"""What the built-in networks have in common."""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.sizes import gib
from hessdiag.suggest import meant

MOST_LAYERS = 100_000  # modules of Python, a few kilobytes and fractions of a millisecond each


MODULES: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


class Network(nn.Sequential):
    """Layers in order, built from sizes. A slice of them is a plain `nn.Sequential`, for it has no sizes of its own.

    >>> net = Network(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> type(net[1:]).__name__, len(net[1:]), net[1:][1] is net[2]
    ('Sequential', 2, True)
    """

    def __getitem__(self, index: int | slice) -> Any:
        """A layer by number, or a part of the network with the same layers under the same names."""
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)


def activation_layer(name: str) -> type[nn.Module]:
    """The layer of an activation.

    Raises:
        SpecError: if there is none of that name.
    """
    if name not in MODULES:
        near = meant(str(name), MODULES) or "relu"
        raise SpecError(f"unknown activation {name!r}: not one of {', '.join(MODULES)}.", f"activation={near!r}")
    return MODULES[name]


def seeded(seed: int | None) -> torch.Generator | None:
    """A source of random numbers; `None`, torch's global one, without a seed."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def check_sizes(layers: int, numbers: int, dtype: torch.dtype, *, depth: str, width: tuple[str, int]) -> None:
    """End before layers are built, or memory is taken, that there cannot be.

    Args:
        layers: How many.
        numbers: Parameters of all of them.
        dtype: Of the parameters.
        depth: What the number of layers is called.
        width: What decides the size of a layer, and how much of it was asked for.

    Raises:
        SpecError: with the largest that there can be.
    """
    if layers > MOST_LAYERS:
        raise SpecError(f"a network has at most {MOST_LAYERS:,} layers, not {layers:,}.", f"{depth}={MOST_LAYERS}")
    needed, free = numbers * dtype.itemsize, free_bytes()
    if needed > free:
        name, asked = width
        fitting = max(int(asked * math.sqrt(free / needed)), 1)
        raise SpecError(
            f"{numbers:,} parameters take {gib(needed, 0)}, and {gib(free, 1)} of memory are free.",
            f"{name}={fitting}" if fitting < asked else f"a smaller {depth}",
        )


def uninitialized(fan_in: int, fan_out: int, *, bias: bool, dtype: torch.dtype) -> nn.Linear:
    """A linear layer whose numbers are yet to be written: no random number is drawn.

    `to_empty` would do the same, and import sympy for it.
    """
    layer = nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype, device="meta")
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
    return layer
