"""Convolutional networks: the classic LeNet for colour images, and a small one for small images."""

from collections import OrderedDict

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.network import Network


class LeNet(Network):
    """Two 5x5 convolutions with max-pooling, three linear layers, ReLU: 62,006 parameters on 3x32x32.

    Args:
        in_channels: Of the image.
        size: Height and width of the image, at least 16.
        classes: Outputs.
        dtype: Of the parameters.

    Raises:
        SpecError: if the image is too small.

    >>> sum(parameter.numel() for parameter in LeNet().parameters())
    62006
    """

    def __init__(
        self, in_channels: int = 3, size: int = 32, classes: int = 10, dtype: torch.dtype = torch.float64
    ) -> None:
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise SpecError(f"LeNet takes images of at least 16x16, not {size}x{size}.", "builtin:lenet(size=32)")
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 6, 5, dtype=dtype),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5, dtype=dtype),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * side * side, 120, dtype=dtype),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84, dtype=dtype),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, classes, dtype=dtype),
            )
        )


class ConvNet(Network):
    """Two 3x3 convolutions, the second with stride 2, and a linear classifier; for images from 4x4 up.

    Args:
        in_channels: Of the image.
        size: Height and width of the image.
        classes: Outputs.
        channels: Of the first convolution; the second has twice as many.
        dtype: Of the parameters.

    >>> ConvNet(size=8)(torch.zeros(2, 1, 8, 8, dtype=torch.float64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 8,
        classes: int = 10,
        channels: int = 8,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        side = (size + 1) // 2
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, channels, 3, padding=1, dtype=dtype),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, dtype=dtype),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc=nn.Linear(2 * channels * side * side, classes, dtype=dtype),
            )
        )
