"""How wide a layer is in effect: by how many independent terms it averages the energy that it passes on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hessdiag.problem.problem import Problem
from hessdiag.theory.convolution import zero_padding_decay

SAMPLES = 4  # of the batch; a Gram matrix of image patches each
_PADDING = {"zeros": "constant"}

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d


@dataclass(frozen=True)
class EffectiveWidth:
    """Two widths of one layer.

    Attributes:
        path: Inputs of one output neuron: k^2 c of a convolution, its width in Vanishing Curvature, section 5.
        stable_rank: w in Var |Wh|^2 / (E |Wh|^2)^2 = 2 / w for Gaussian weights W, at the layer's own inputs h: what
            the number of units is for a fully connected layer.
        padding: Factor by which its padding multiplies the expected energy of an image, deep in a network of such
            layers; `None` where the layer is no convolution, or changes the image's size.
    """

    path: float
    stable_rank: float
    padding: float | None = None


def effective_widths(problem: Problem) -> dict[str, EffectiveWidth]:
    """Effective widths of a convolutional network's layers, by name, on a few samples of the first batch.

    For the linear layers of a network without convolutions the number of units says it all, and nothing is measured.

    With P the matrix of input patches of one sample, (c_in k^2, pixels), a layer of c_out channels passes on |WP|^2, of
    relative variance 2 / (c_out r) with r = tr(PP')^2 / |PP'|^2, the stable rank of PP'. Weight sharing makes r smaller
    than the number of pixels, and smoothing makes it smaller layer by layer. Samples are joined by the harmonic mean,
    since variances add; a layer whose inputs are all zero is left out.

    >>> model = nn.Sequential(nn.Conv2d(2, 32, 3), nn.Flatten(), nn.Linear(32, 1))
    >>> found = effective_widths(Problem(model, data=[(torch.ones(4, 2, 3, 3), torch.ones(4, 1))], loss="mse"))
    >>> round(found["0"].stable_rank, 4), found["0"].path  # one pixel: as wide as its channels
    (32.0, 18.0)
    """
    found: dict[str, EffectiveWidth] = {}
    if not any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in problem.model.modules()):
        return found
    with torch.no_grad(), _watched(problem.model, found):
        problem.evaluate(problem.data[0])
    return found


@contextmanager
def _watched(model: nn.Module, found: dict[str, EffectiveWidth]) -> Iterator[None]:
    def watch(name: str, layer: Weighted) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            plain = bool(arguments) and not arguments[0].is_nested
            width = stable_rank_width(layer, _batched(layer, arguments[0])[:SAMPLES].double()) if plain else None
            if width is not None:
                found[name] = EffectiveWidth(float(layer.weight[0].numel()), width, padding_factor(layer, arguments[0]))

        return layer.register_forward_pre_hook(look)

    handles = [watch(name, layer) for name, layer in model.named_modules() if isinstance(layer, Weighted)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stable_rank_width(layer: Weighted, inputs: Tensor) -> float | None:
    """Harmonic mean over samples of c_out r, see `effective_widths`; `None` if all inputs are zero.

    Args:
        layer: Only its shape counts, not its weights.
        inputs: (samples, ...) as the layer takes them.
    """
    patches = _patches(layer, inputs)  # (samples, groups, c_in k^2 / groups, pixels)
    if patches.shape[-2] > patches.shape[-1]:
        patches = patches.mT
    gram = patches @ patches.mT
    trace = gram.diagonal(dim1=-2, dim2=-1).sum((-2, -1))
    alive = trace > 0
    if not bool(alive.any()):
        return None
    outputs = layer.weight.shape[0] / patches.shape[1]  # of one group
    inverse = (gram / trace.clamp_min(torch.finfo(trace.dtype).tiny)[:, None, None, None]).square().sum((1, 2, 3))
    return outputs / float(inverse[alive].mean())


def padding_factor(layer: Weighted, inputs: Tensor) -> float | None:
    """Factor by which the padding multiplies the expected energy of an image, see `EffectiveWidth`.

    >>> round(padding_factor(nn.Conv2d(2, 2, 3, padding=1), torch.ones(1, 2, 7, 7)), 6)
    0.901081
    """
    if isinstance(layer, nn.Linear):
        return None
    half = [size // 2 for size in layer.kernel_size]
    whole = [side for size in reversed(half) for side in (size, size)]
    plain = all(step == 1 for step in (*layer.stride, *layer.dilation)) and all(size % 2 for size in layer.kernel_size)
    if not plain or list(layer._reversed_padding_repeated_twice) != whole:
        return None
    if layer.padding_mode != "zeros":
        return 1.0 if layer.padding_mode == "circular" else None
    sides = inputs.shape[-len(half) :]
    energies = [zero_padding_decay(side, size) for side, size in zip(sides, layer.kernel_size, strict=True)]
    return math.sqrt(math.prod(energies))


def _batched(layer: Weighted, inputs: Tensor) -> Tensor:
    """Inputs with a dimension for samples, without which layers take a single one too."""
    dimensions = 2 if isinstance(layer, nn.Linear) else 2 + len(layer.kernel_size)
    return inputs if inputs.ndim >= dimensions else inputs[None]


def _patches(layer: Weighted, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), 1, -1, inputs.shape[-1]).mT
    if isinstance(layer, nn.Conv1d):  # as an image of height one
        inputs = inputs[:, :, None]
    kernel, stride, dilation = (
        (1,) * (2 - len(size)) + size for size in (layer.kernel_size, layer.stride, layer.dilation)
    )
    sides = layer._reversed_padding_repeated_twice
    sides = [*sides, *[0] * (4 - len(sides))]
    mode = _PADDING.get(layer.padding_mode, layer.padding_mode)
    if isinstance(layer, nn.Conv1d) and mode != "constant":
        padded = F.pad(inputs[:, :, 0], sides[:2], mode)[:, :, None]
    else:
        padded = F.pad(inputs, sides, mode)
    columns = F.unfold(padded, kernel, dilation=dilation, stride=stride)
    return columns.reshape(len(inputs), layer.groups, -1, columns.shape[-1])
