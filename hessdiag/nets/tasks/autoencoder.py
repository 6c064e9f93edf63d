"""A deep sigmoid autoencoder, whose loss stays at that of a constant image for long (Adaptive norms, section 5)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.nets.initializers import draw, source
from hessdiag.nets.network import Network, uninitialized
from hessdiag.nets.tasks.task import setup

LATENTS = 4
SIZES = (64, 48, 24, 8, LATENTS, 8, 24, 48, 64)
BATCH = 32
CURVATURE_BATCH = 512
OUT = 0.9  # of the way from the entropy of the images to the loss of the best constant image
CONTENDERS = ("sgd", "rmsprop", "adam", "tr-uniform", "tr-rmsprop")


def autoencoder(samples: int = 2048, seed: int = 0, dtype: torch.dtype = torch.float64) -> Mapping[str, Any]:
    """64-48-24-8-4-8-24-48-64 with sigmoids, a linear code and biases, on images sigmoid(z W) of four latent numbers.

    The loss is binary cross-entropy of logits, and cannot be below the images' own entropy. Weights and biases start
    uniform on +-1/sqrt(fan_in), torch's default.

    Args:
        samples: How many images.
        seed: Of weights and images.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; each image (64,) is its own target.

    >>> task = autoencoder()
    >>> sum(parameter.numel() for parameter in task["model"].parameters())
    9124
    >>> 0 < task["model"].task.floor < 0.69
    True
    """
    generator = source(seed, LATENTS)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(SIZES):
        layer = uninitialized(fan_in, fan_out, bias=True, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(draw("lecun", (fan_out, fan_in), generator=generator))
            layer.bias.copy_(draw("lecun", (fan_out, fan_in), generator=generator)[:, 0])
        layers += [layer, *([nn.Sigmoid()] if fan_out != LATENTS else [])]
    pictures = images(samples, generator)
    return setup(
        model=Network(*layers[:-1]),
        data=(pictures, pictures.clone()),
        loss="bce",
        contenders=CONTENDERS,
        samples=BATCH,
        curvature_samples=CURVATURE_BATCH,
        floor=entropy(pictures),
        level=OUT,
    )


def images(samples: int, generator: torch.Generator) -> Tensor:
    """sigmoid(z W) with standard normal z (samples, 4) and W (4, 64)."""
    latent = torch.randn(samples, LATENTS, dtype=torch.float64, generator=generator)
    return (latent @ torch.randn(LATENTS, SIZES[0], dtype=torch.float64, generator=generator)).sigmoid()


def entropy(targets: Tensor) -> float:
    """Mean of -t log t - (1 - t) log(1 - t): the binary cross-entropy of targets with themselves.

    >>> round(entropy(torch.tensor([0.5, 0.25])), 6)  # (log 2 + 2 log 2 - 3/4 log 3) / 2
    0.627741
    """
    return float((torch.special.entr(targets) + torch.special.entr(1 - targets)).mean())
