"""Bottleneck ResNets, with or without normalization and skip connections (Vanishing Curvature, Figures 7 and 19)."""

from collections import OrderedDict

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import default_init
from hessdiag.nets.network import Network, seeded
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.nets.residual import Residual

# He et al. (2016); the paper's own lists are lost, and so is its split of 500 layers. Ours leaves the outer stages as
# they are and lets the middle ones grow as from 101 to 152 layers, in the ratio 8 : 36.
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 500: (3, 29, 131, 3)}
MIDDLE = 8 / (8 + 36)
EXPANSION = 4
SMALLEST = 14


class ResNet(Network):
    """A 3x3 convolution, four stages of bottleneck blocks (1x1, 3x3, 1x1), an average over the image, a linear layer.

    Stages work at full resolution, a half, a quarter and an eighth (32, 16, 8, 4 on CIFAR-10), with 64, 128, 256 and
    512 channels inside the blocks and four times as many between them. No biases: they would learn however little
    comes back from the layers before. Without `batchnorm` and `residual` it is the paper's stripped ResNet.

    Args:
        depth: Layers, 3 per block and 2: 50, 101, 152 and 500 are split over the stages as `BLOCKS` says; others of
            the form 3 n + 2 from 14 on have up to 3 blocks in the outer stages.
        channels: Inside the blocks of the first stage.
        wide: Twice as many channels everywhere.
        big: Filters of 3x3 instead of 1x1, and of 5x5 instead of 3x3.
        batchnorm: Normalize after each convolution.
        residual: A skip connection over each block; where it changes the shape, through a 1x1 convolution.
        classes: Outputs.
        in_channels: Of the images.
        resolution: Height and width of the images, at least 8.
        init: A key of `hessdiag.nets.INITS`.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.

    Raises:
        SpecError: if no ResNet has this depth, or a size is too small.

    >>> sum(isinstance(module, nn.Conv2d | nn.Linear) for module in ResNet(depth=50, channels=1).modules())
    50
    """

    def __init__(
        self,
        depth: int = 50,
        channels: int = 64,
        wide: bool = False,
        big: bool = False,
        batchnorm: bool = False,
        residual: bool = False,
        classes: int = 10,
        in_channels: int = 3,
        resolution: int = 32,
        init: str | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if min(channels, classes, in_channels) < 1 or resolution < 8:
            raise SpecError("a ResNet has at least 1 channel and 1 class, and takes images of 8x8 or more.")
        counts = blocks(depth)
        width = 2 * channels if wide else channels
        sizes = (3, 5) if big else (1, 3)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["stem"] = nn.Sequential(*_convolution(in_channels, width, 3, 1, batchnorm), nn.ReLU())
        taken = width
        for stage, count in enumerate(counts):
            inner = width * 2**stage
            parts: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                parts += _block(taken, inner, stride, sizes, batchnorm=batchnorm, residual=residual)
                taken = EXPANSION * inner
            stages[f"stage{stage + 1}"] = nn.Sequential(*parts)
        stages["pool"] = nn.AdaptiveAvgPool2d(1)
        stages["flatten"] = nn.Flatten()
        stages["fc"] = nn.Linear(taken, classes, bias=False)
        super().__init__(stages)
        self.to(dtype)
        self.input_shape = (in_channels, resolution, resolution)
        generator = seeded(seed)
        reinitialize(self, init or default_init("relu"), generator)


def blocks(depth: int) -> tuple[int, int, int, int]:
    """Blocks in each of the four stages.

    Raises:
        SpecError: if the depth is not 3 n + 2 with n of at least 4.

    >>> blocks(50), blocks(500), blocks(14), blocks(26)
    ((3, 4, 6, 3), (3, 29, 131, 3), (1, 1, 1, 1), (2, 1, 3, 2))
    """
    if depth in BLOCKS:
        return BLOCKS[depth]
    if depth < SMALLEST or depth % 3 != 2:
        below = max(SMALLEST, depth - (depth - 2) % 3)
        raise SpecError(
            f"no bottleneck ResNet has {depth} layers: it has 3 per block and 2, and at least {SMALLEST}.",
            f"depth={below}, or one of {', '.join(map(str, BLOCKS))}",
        )
    count = (depth - 2) // 3
    outer = min(3, count // 4)
    second = max(1, round((count - 2 * outer) * MIDDLE))
    return outer, second, count - 2 * outer - second, outer


def _convolution(taken: int, given: int, kernel: int, stride: int, batchnorm: bool) -> list[nn.Module]:
    layer = nn.Conv2d(taken, given, kernel, stride, padding=kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(given)] if batchnorm else [layer]


def _block(
    taken: int, inner: int, stride: int, sizes: tuple[int, int], *, batchnorm: bool, residual: bool
) -> list[nn.Module]:
    """One bottleneck block with the activation behind it."""
    outer, (small, large) = EXPANSION * inner, sizes
    body = [
        *_convolution(taken, inner, small, 1, batchnorm),
        nn.ReLU(),
        *_convolution(inner, inner, large, stride, batchnorm),
        nn.ReLU(),
        *_convolution(inner, outer, small, 1, batchnorm),
    ]
    if not residual:
        return [*body, nn.ReLU()]
    reshapes = stride != 1 or taken != outer
    shortcut = nn.Sequential(*_convolution(taken, outer, 1, stride, batchnorm)) if reshapes else None
    return [Residual(body, shortcut), nn.ReLU()]
