"""What the built-in networks have in common."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn


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


def uninitialized(fan_in: int, fan_out: int, *, bias: bool, dtype: torch.dtype) -> nn.Linear:
    """A linear layer whose numbers are yet to be written: no random number is drawn.

    `to_empty` would do the same, and import sympy for it.
    """
    layer = nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype, device="meta")
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
    return layer
