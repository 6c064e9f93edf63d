"""ResNets on digits: 500 layers without skips, and ResNet-18 (Vanishing Curvature, Figure 8; LODO, section 5)."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import source
from hessdiag.nets.network import Network, seeded
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.nets.residual import Residual
from hessdiag.nets.resnet import ResNet
from hessdiag.nets.tasks.grey_digits import WHITE, grey_digits
from hessdiag.nets.tasks.task import setup

CLASSES = 10
STRIPPED_BATCH = 64  # Vanishing Curvature, appendix A.1
BATCH = 128
STRIPPED_CONTENDERS = ("sgd", "sgd(momentum=0.9)", "rmsprop", "adam")
CONTENDERS = ("adam(lr=4.295e-4, betas=(0.9562, 0.99814))", "sgd(lr=9.942e-3, momentum=0.99409)", "rmsprop")


def stripped_resnet(
    depth: int = 500,
    channels: int = 4,
    resolution: int = 16,
    init: str = "he_uniform",
    samples: int = 512,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Mapping[str, Any]:
    """A deep ResNet without normalization and skips, a plateau that RMSprop is said to leave, and digits to classify.

    The paper trains 64 channels on CIFAR-10 at 32x32; `channels=64, resolution=32` is that, on grey digits. Here the
    median entry of the gradient is about 1e-20, below any usual epsilon, and its square below float32.

    Args:
        depth: Layers: 500, 152, 101, 50 or any other 3 n + 2 from 14 on.
        channels: Inside the blocks of the first stage.
        resolution: Height and width of the images, at least 8.
        init: A key of `hessdiag.nets.INITS`.
        samples: How many digits.
        seed: Of the weights, and of which digits.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; images (samples, 1, resolution, resolution) and classes (samples,).

    Raises:
        SpecError: if no such network exists.
        LoadError: if scikit-learn is not installed.

    >>> task = stripped_resnet(depth=14, samples=3)
    >>> task["model"](task["data"][0]).shape
    torch.Size([3, 10])
    """
    model = ResNet(depth, channels, in_channels=1, resolution=resolution, init=init, seed=seed, dtype=dtype)
    return setup(
        model=model,
        data=digits(samples, resolution, 1, seed),
        loss="ce",
        contenders=STRIPPED_CONTENDERS,
        samples=STRIPPED_BATCH,
    )


class ResNet18(Network):
    """Eight blocks of two 3x3 convolutions with BatchNorm and skips, for small images: no 7x7 filters and no pooling.

    He et al. (2016), section 4.2, with LODO's stem: (n, in_channels, h, w) to logits (n, classes).

    Args:
        width: Channels of the first of four stages, each of which has twice as many as the one before.
        classes: Outputs.
        in_channels: Of the images.
        seed: Of the weights (He, normal); `None` takes torch's global random state.
        dtype: Of the parameters.

    Raises:
        SpecError: if a size is below 1.

    >>> sum(parameter.numel() for parameter in ResNet18(seed=0).parameters())
    11173962
    """

    def __init__(
        self,
        width: int = 64,
        classes: int = CLASSES,
        in_channels: int = 3,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if min(width, classes, in_channels) < 1:
            raise SpecError("a ResNet has at least 1 channel and 1 class.", "width=64")
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["stem"] = nn.Sequential(*_normalized(in_channels, width, 3, 1), nn.ReLU())
        taken = width
        for stage in range(4):
            given = width * 2**stage
            first, second = _block(taken, given, 2 if stage else 1), _block(given, given, 1)
            stages[f"stage{stage + 1}"] = nn.Sequential(*first, *second)
            taken = given
        stages["pool"] = nn.AdaptiveAvgPool2d(1)
        stages["flatten"] = nn.Flatten()
        stages["fc"] = nn.Linear(taken, classes)
        super().__init__(stages)
        self.to(dtype)
        reinitialize(self, "he_normal", seeded(seed))


def _normalized(taken: int, given: int, kernel: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(taken, given, kernel, stride, padding=kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(given)]


def _block(taken: int, given: int, stride: int) -> list[nn.Module]:
    body = [*_normalized(taken, given, 3, stride), nn.ReLU(), *_normalized(given, given, 3, 1)]
    shortcut = nn.Sequential(*_normalized(taken, given, 1, stride)) if stride > 1 or taken != given else None
    return [Residual(body, shortcut), nn.ReLU()]


def resnet18(
    width: int = 64, resolution: int = 32, samples: int = 256, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Mapping[str, Any]:
    """`ResNet18` and digits of three channels, which stand in for CIFAR-10.

    The paper's batches have 2,048 images; there are 1,797 digits, and ours have 128. Adam's and momentum's constants
    are its own.

    Args:
        width: Channels of the first stage.
        resolution: Height and width of the images.
        samples: How many digits.
        seed: Of the weights, and of which digits.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; images (samples, 3, resolution, resolution) and classes (samples,).

    Raises:
        SpecError: if a size is below 1.
        LoadError: if scikit-learn is not installed.

    >>> task = resnet18(width=2, resolution=8, samples=3)
    >>> task["model"](task["data"][0]).shape
    torch.Size([3, 10])
    """
    return setup(
        model=ResNet18(width, seed=seed, dtype=dtype),
        data=digits(samples, resolution, 3, seed),
        loss="ce",
        contenders=CONTENDERS,
        samples=BATCH,
        score=(0.9, 1.0),
    )


def digits(samples: int, size: int, channels: int, seed: int) -> tuple[Tensor, Tensor]:
    """So many of the digits, or all, drawn at random: images (samples, channels, size, size) in [0, 1] and classes."""
    pixels, labels = grey_digits(size)
    chosen = torch.randperm(len(labels), generator=source(seed, len(labels)))[:samples]
    return (pixels[chosen] / WHITE).expand(-1, channels, -1, -1).contiguous(), labels[chosen]
