"""Which dimension of a tensor runs over units, and how many of these a nonlinearity lets nothing through."""

import math
import re

from torch import Tensor

from hessdiag.questions.check.watching.functions import DEAD_BELOW, LINEAR_WITHIN

SURE = (1 + math.sqrt(0.99)) / 2  # a probability p from which p (1 - p) is less than a hundredth of 1/4


def axis_of_function(name: str, tensor: Tensor) -> int:
    """The dimension of units in what a function of torch puts out.

    >>> import torch
    >>> axis_of_function("conv_transpose2d", torch.zeros(8, 3, 5, 5)), axis_of_function("linear", torch.zeros(8, 3))
    (-3, -1)
    """
    if found := re.search(r"conv\w*?([123])d", name):
        return -1 - int(found[1])
    if re.search(r"(batch|instance|group)_norm|prelu", name) and tensor.ndim > 1:
        return 1
    return -1


def axis_of_units(tensor: Tensor, units: int | None, axis: int) -> int:
    """The dimension of so many units in a tensor that was reshaped: where it was, or else the last, or another."""
    if units is None or (-tensor.ndim <= axis < tensor.ndim and tensor.shape[axis] == units):
        return axis
    sizes = list(tensor.shape)
    return next((place for place in (tensor.ndim - 1, *range(1, tensor.ndim)) if sizes[place] == units), -1)


def flat_units(activation: str, laid: Tensor) -> Tensor | None:
    """Which units of an input (samples, positions, units) all lie where the nonlinearity is flat; `None` for others."""
    below = DEAD_BELOW.get(activation, -math.inf)
    return None if below == -math.inf else laid.amax((0, 1)) < below


def dead_fraction(activation: str, laid: Tensor, flat: Tensor | None) -> Tensor | None:
    """Share of units of an output (samples, positions, units) that are zero, or were flat, for all.

    >>> import torch
    >>> dead_fraction("relu", torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]), None)
    tensor(0.5000, dtype=torch.float64)
    """
    if activation not in DEAD_BELOW:
        return None
    dead = (laid == 0).all(0).all(0)
    return (dead if flat is None or flat.shape != dead.shape else dead | flat).double().mean()


def saturated_fraction(activation: str, laid: Tensor, bounds: tuple[float, float] | None) -> Tensor | None:
    """Share of entries of an output at which a bounded nonlinearity is flat; of a softmax, of its distributions.

    Args:
        activation: Its name.
        laid: What it put out, (samples, positions, units).
        bounds: Between which it has a slope, where its name does not tell.
    """
    if activation in LINEAR_WITHIN:
        low, high = LINEAR_WITHIN[activation]
        return ((laid < low) | (laid > high)).double().mean()
    if activation == "softmax":
        return (laid.amax(-1) > SURE).double().mean()
    if activation == "relu6" and bounds is not None:  # its other side is that of a ReLU
        return (laid >= bounds[1]).double().mean()
    if bounds is not None:
        return ((laid <= bounds[0]) | (laid >= bounds[1])).double().mean()
    return None
