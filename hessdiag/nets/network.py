"""What the built-in networks have in common."""

from collections import OrderedDict
from typing import Any

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
