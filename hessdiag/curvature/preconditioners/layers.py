"""The layers whose curvature has Kronecker factors: each multiplies by one matrix, at one position or at many.

A bias is one more column of the matrix, with a constant input of 1. Convolutions multiply patches of their input.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem.problem import Problem

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class MatrixLayer:
    """A linear or convolutional layer of its own.

    Attributes:
        name: Of the module.
        module: With its weight and perhaps its bias among the parameters.
        places: Of the parameters in the parameter vector, (b, a): outputs and inputs, with the bias as last column.
    """

    name: str
    module: nn.Module
    places: Tensor

    @property
    def has_bias(self) -> bool:
        """Whether the bias is differentiated too."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return self.places.numel() > weight.numel()


def matrix_layers(problem: Problem) -> tuple[MatrixLayer, ...]:
    """The linear and convolutional layers whose matrix is differentiated and is no other module's too.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    >>> problem = Problem(model, data=[(torch.zeros(4, 2), torch.zeros(4, 1))], loss="mse")
    >>> [(layer.name, tuple(layer.places.shape)) for layer in matrix_layers(problem)]
    [('0', (3, 3)), ('2', (1, 3))]
    """
    starts: dict[Tensor, int] = {
        parameter: place.start for parameter, place in zip(problem.parameters, problem.places(), strict=True)
    }
    owners: dict[Tensor, int] = {}
    for module in problem.model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[parameter] = owners.get(parameter, 0) + 1
    found = []
    for name, module in problem.model.named_modules():
        if type(module) is not nn.Linear and not _plain(module):
            continue
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        if weight not in starts or owners[weight] > 1:
            continue
        places = starts[weight] + torch.arange(weight.numel()).view(len(weight), -1)
        if isinstance(bias, Tensor) and bias in starts and owners[bias] == 1:
            places = torch.cat([places, starts[bias] + torch.arange(len(bias))[:, None]], dim=1)
        found.append(MatrixLayer(name or type(module).__name__, module, places.to(weight.device)))
    return tuple(found)


def _plain(module: nn.Module) -> bool:
    """Whether a module is a convolution that multiplies all of its channels by one matrix."""
    return type(module) in CONVOLUTIONS and bool(module.groups == 1 and module.padding_mode == "zeros")


@dataclass
class Seen:
    """What one batch's forward pass showed of the layers.

    Attributes:
        inputs: Of each layer, one tensor a call, (samples, positions, a).
        shifts: Zeros that were added to what each call put out, to differentiate by.
    """

    inputs: dict[nn.Module, list[Tensor]] = field(default_factory=dict)
    shifts: dict[nn.Module, list[Tensor]] = field(default_factory=dict)


@contextmanager
def watched(layers: tuple[MatrixLayer, ...]) -> Iterator[Seen]:
    """Watch the inputs and outputs of layers in the forward passes within."""
    seen, biased = Seen(), {layer.module: layer.has_bias for layer in layers}

    def look(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        shift = torch.zeros_like(output, requires_grad=True)
        h = _positions(module, args[0].detach())
        if biased[module]:
            h = torch.cat([h, h.new_ones(*h.shape[:2], 1)], dim=2)
        seen.inputs.setdefault(module, []).append(h)
        seen.shifts.setdefault(module, []).append(shift)
        return output + shift

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.module.register_forward_hook(look).remove)
        yield seen


def _positions(module: nn.Module, x: Tensor) -> Tensor:
    """What a layer multiplies, (samples, positions, a): vectors, or patches of a convolution."""
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])
    assert isinstance(module, CONVOLUTIONS)
    sides = range(len(module.kernel_size))
    x = (
        nn.functional.pad(x, module._reversed_padding_repeated_twice)
        if isinstance(module.padding, str)
        else _padded(module, x)
    )
    for side in sides:  # (samples, channels, positions ..., offsets ...)
        reach = module.dilation[side] * (module.kernel_size[side] - 1) + 1
        x = x.unfold(2 + side, reach, module.stride[side])[..., :: module.dilation[side]]
    count = len(sides)
    x = x.permute(0, *range(2, 2 + count), 1, *range(2 + count, 2 + 2 * count))
    return x.reshape(len(x), math.prod(x.shape[1 : 1 + count]), -1)


def _padded(module: nn.Module, x: Tensor) -> Tensor:
    widths = [width for width in reversed(module.padding) for _ in range(2)]  # type: ignore[arg-type]
    return nn.functional.pad(x, widths)


def slopes_of(layer: MatrixLayer, slopes: Tensor) -> Tensor:
    """Slopes of what a layer put out, (k, samples, ...), as (k, samples, positions, b)."""
    if isinstance(layer.module, nn.Linear):
        return slopes.reshape(*slopes.shape[:2], -1, slopes.shape[-1])
    return slopes.flatten(3).transpose(2, 3)
