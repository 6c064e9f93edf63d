"""Products of data with a weight, as torch is called for them: by which functions, with which axis of the weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

# Where the data is among the arguments; the weight comes next.
_MATRIX = {"linear": 0, "addmm": 1, "matmul": 0, "mm": 0, "__matmul__": 0}
_CONVOLUTIONS = {"conv1d": 0, "conv2d": 0, "conv3d": 0}


@dataclass(frozen=True, eq=False)
class Product:
    """A call of torch that multiplies data by a weight.

    Attributes:
        data: What is multiplied.
        weight: The parameter, though it may have been transposed for the call.
        inputs: That of its axes which the product sums over.
        outputs: That of its axes which the result has.
        channels: Where that axis is in the result, counted from its end.
    """

    data: Any
    weight: nn.Parameter
    inputs: int
    outputs: int
    channels: int


def product(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product | None:
    """What a call multiplies; `None` for calls of anything but products with a parameter.

    >>> import torch
    >>> weight = nn.Parameter(torch.zeros(3, 2))
    >>> found = product(torch.matmul, (torch.zeros(5, 2), weight.T), {})
    >>> found.weight is weight, found.inputs, found.outputs
    (True, 1, 0)
    """
    name = getattr(function, "__name__", "")
    place = (_MATRIX | _CONVOLUTIONS).get(name)
    if place is None:
        return None
    given = [*args[place:], *(kwargs[key] for key in ("input", "weight") if key in kwargs)]
    factor = given[1] if len(given) > 1 else None
    if not isinstance(factor, Tensor):
        return None
    weight = factor if isinstance(factor, nn.Parameter) else factor._base
    if not isinstance(weight, nn.Parameter) or weight.ndim != factor.ndim or weight.numel() != factor.numel():
        return None
    if name in _CONVOLUTIONS:
        return Product(given[0], weight, 1, 0, 1 - weight.ndim)
    if weight.ndim != 2:
        return None
    turned = factor.stride() != weight.stride()
    inputs = 1 if (name == "linear") != turned else 0
    return Product(given[0], weight, inputs, 1 - inputs, -1)
