"""Fully convolutional networks from image to image (Vanishing Curvature, Figures 6 and 18)."""

from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import default_init
from hessdiag.nets.network import Network, activation_layer, check_sizes, seeded
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.nets.residual import stack

PADDINGS = ("zeros", "circular")


class FCN(Network):
    """`depth` convolutions of k x k at one resolution, no biases, a linear output; the target is the input image.

    The paper leaves the kernel size out; 3 is the usual one. Its resolutions are 32 and 7, the latter because the last
    stage of a ResNet on ImageNet works at that.

    Args:
        depth: Number L of convolutions.
        channels: Of the hidden layers.
        kernel: k, odd; images are padded by (k - 1) / 2 on each side.
        padding: "zeros", which shrinks the energy of small images layer by layer, or "circular", which does not.
        resolution: Height and width of the images.
        in_channels: Of the images.
        activation: As for `MLP`.
        init: A key of `hessdiag.nets.INITS`; by default `he_uniform` for ReLU and `xavier_uniform` otherwise.
        batchnorm: Normalize each hidden layer over batch and image, before its activation.
        residual: Skip connections over three hidden layers at a time, from the second on.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.

    Raises:
        SpecError: if a name is unknown, the kernel even, or a size below 1.

    >>> net = FCN(depth=3, channels=4, resolution=7)
    >>> [tuple(parameter.shape) for parameter in net.parameters()], net.input_shape
    ([(4, 3, 3, 3), (4, 4, 3, 3), (3, 4, 3, 3)], (3, 7, 7))
    """

    reconstructs_input = True

    def __init__(
        self,
        depth: int = 8,
        channels: int = 32,
        kernel: int = 3,
        padding: Literal["zeros", "circular"] = "zeros",
        resolution: int = 32,
        in_channels: int = 3,
        activation: str = "relu",
        init: str | None = None,
        batchnorm: bool = False,
        residual: bool = False,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        layer_of = activation_layer(activation)
        if padding not in PADDINGS:
            raise SpecError(f"unknown padding {padding!r}: {' or '.join(PADDINGS)}.", "padding='circular'")
        if min(depth, channels, resolution, in_channels) < 1:
            raise SpecError("depth, channels, in_channels and resolution of an FCN must be at least 1.")
        if kernel % 2 != 1 or kernel // 2 > resolution:
            raise SpecError(
                f"a kernel of {kernel} does not keep the size of {resolution}x{resolution} images: it must be odd, and "
                "padding no larger than the image.",
                "kernel=3",
            )
        widest = max(channels, in_channels) if depth > 1 else in_channels
        numbers = kernel**2 * (2 * in_channels * widest + max(depth - 2, 0) * channels**2)
        check_sizes(depth, numbers, dtype, depth="depth", width=("channels", channels))
        sizes = [in_channels, *[channels] * (depth - 1), in_channels]
        layers = [
            nn.Conv2d(c, d, kernel, padding=kernel // 2, padding_mode=padding, bias=False, dtype=dtype)
            for c, d in pairwise(sizes)
        ]
        normalization = partial(nn.BatchNorm2d, channels, dtype=dtype) if batchnorm else None
        super().__init__(*stack(layers, layer_of, normalization, residual=residual))
        self.input_shape = (in_channels, resolution, resolution)
        generator = seeded(seed)
        reinitialize(self, init or default_init(activation), generator)
